#include "qkv/engine/grammar/source_text.h"

#include <algorithm>

#include "qkv/core/error.h"
#include "qkv/core/utf8.h"

namespace qkv {

SourceText::SourceText(std::string_view text, std::string_view where) : text_(text), where_(where) {
  if (const auto invalid = first_invalid_utf8(text)) {
    text_ = text.substr(0, *invalid);  // the place is counted in what is valid
    expected("UTF-8", "a byte that is not", *invalid);
  }
}

char32_t SourceText::peek() const {
  size_t position = position_;
  return at_end() ? 0 : *next_code_point(text_, position);
}

char32_t SourceText::next() {
  return at_end() ? 0 : *next_code_point(text_, position_);
}

bool SourceText::skip(std::string_view expected) {
  if (!rest().starts_with(expected)) return false;
  position_ += expected.size();
  return true;
}

std::optional<int64_t> SourceText::number(int64_t limit) {
  const size_t begin = position_;
  int64_t value = 0;
  for (; !at_end() && text_[position_] >= '0' && text_[position_] <= '9'; ++position_) {
    value = value * 10 + (text_[position_] - '0');
    if (value > limit) expected("a number up to " + std::to_string(limit), "a larger one", begin);
  }
  return position_ > begin ? std::optional(value) : std::nullopt;
}

uint32_t SourceText::hexadecimal_number(int digits) {
  uint32_t value = 0;
  for (int i = 0; i < digits; ++i) {
    const char32_t digit = peek();
    if (digit >= '0' && digit <= '9') {
      value = value * 16 + (digit - '0');
    } else if ((digit >= 'a' && digit <= 'f') || (digit >= 'A' && digit <= 'F')) {
      value = value * 16 + ((digit | 0x20) - 'a' + 10);
    } else {
      expected(fmt::format("{} hexadecimal digits", digits));
    }
    next();
  }
  return value;
}

char32_t SourceText::hexadecimal(int digits) {
  const size_t begin = position_;
  const uint32_t value = hexadecimal_number(digits);
  if (value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF))
    expected("a character up to U+10FFFF that is no surrogate",
             fmt::format("U+{:04X}", static_cast<uint32_t>(value)), begin);
  return value;
}

void SourceText::expected(std::string_view what) const {
  if (at_end()) expected(what, "the end", position_);
  size_t end = position_;
  const char32_t character = *next_code_point(text_, end);
  const std::string_view spelling = text_.substr(position_, end - position_);
  const std::string found =
      character == '\n'  ? "the end of the line"
      : character < 0x20 ? fmt::format("the control character U+{:04X}", static_cast<uint32_t>(character))
                         : fmt::format("'{}'", spelling);
  expected(what, found, position_);
}

void SourceText::expected(std::string_view what, std::string_view found, size_t position) const {
  refuse(fmt::format("expected {}, found {}", what, found), position);
}

void SourceText::refuse(std::string_view sentence, size_t position) const {
  const std::string_view before = text_.substr(0, position);
  const auto line = 1 + std::count(before.begin(), before.end(), '\n');
  const size_t line_begin = before.rfind('\n') + 1;  // npos + 1 is 0
  const auto column = 1 + std::count_if(before.begin() + static_cast<std::ptrdiff_t>(line_begin),
                                        before.end(), [](char byte) { return (byte & 0xC0) != 0x80; });
  fail("{}:{}:{}: {}", where_, line, column, sentence);
}

}  // namespace qkv
