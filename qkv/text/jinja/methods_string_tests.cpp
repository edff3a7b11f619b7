// str.isalpha() and its kind: true if there is a character and all are of the kind.
#include "qkv/core/utf8.h"
#include "qkv/text/jinja/characters.h"
#include "qkv/text/jinja/filters.h"

namespace qkv::jinja {
namespace {

template <bool (*Holds)(char32_t), bool OfEmpty = false>
Value all(Interpreter&, const Value& self, CallArguments& arguments) {
  const Bound bound("str method", arguments, {});
  const std::string& text = self.text().bytes;
  if (text.empty()) return Value(OfEmpty);
  for (size_t i = 0; i < text.size();) {
    if (!Holds(next_code_point(text, i).value_or(0xFFFD))) return Value(false);
  }
  return Value(true);
}

bool alphanumeric(char32_t c) {
  return is_letter(c) || is_numeric(c);
}
bool ascii(char32_t c) {
  return c < 0x80;
}

template <bool Upper>
Value of_case(Interpreter&, const Value& self, CallArguments& arguments) {
  const Bound bound("str method", arguments, {});
  const std::string& text = self.text().bytes;
  bool cased = false;
  for (size_t i = 0; i < text.size();) {
    const char32_t c = next_code_point(text, i).value_or(0xFFFD);
    if (is_title(c) || (Upper ? is_lower(c) : is_upper(c))) return Value(false);
    cased = cased || (Upper ? is_upper(c) : is_lower(c));
  }
  return Value(cased);
}

Value title_case(Interpreter&, const Value& self, CallArguments& arguments) {
  const Bound bound("istitle", arguments, {});
  const std::string& text = self.text().bytes;
  bool cased = false, in_word = false;
  for (size_t i = 0; i < text.size();) {
    const char32_t c = next_code_point(text, i).value_or(0xFFFD);
    const bool begins = is_upper(c) || is_title(c);
    if ((begins && in_word) || (!begins && is_lower(c) && !in_word)) return Value(false);
    in_word = begins || is_lower(c);
    cased = cased || in_word;
  }
  return Value(cased);
}

Value identifier(Interpreter&, const Value& self, CallArguments& arguments) {
  const Bound bound("isidentifier", arguments, {});
  const std::string& text = self.text().bytes;
  for (size_t i = 0; i < text.size();) {
    const bool first = i == 0;
    const char32_t c = next_code_point(text, i).value_or(0xFFFD);
    if (first ? !is_identifier_start(c) : !is_identifier_part(c)) return Value(false);
  }
  return Value(!text.empty());
}

constexpr Named<Method> kTests[] = {{"isalpha", all<is_letter>},    {"isalnum", all<alphanumeric>},
                                    {"isdecimal", all<is_decimal>}, {"isdigit", all<is_digit>},
                                    {"isnumeric", all<is_numeric>}, {"isspace", all<is_space>},
                                    {"isascii", all<ascii, true>},  {"isprintable", all<is_printable, true>},
                                    {"islower", of_case<false>},    {"isupper", of_case<true>},
                                    {"istitle", title_case},        {"isidentifier", identifier}};

}  // namespace

std::span<const Named<Method>> string_tests() {
  return kTests;
}

}  // namespace qkv::jinja
