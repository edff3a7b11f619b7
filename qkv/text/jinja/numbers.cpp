// Numbers written in text, and values as integers.
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "qkv/text/jinja/characters.h"
#include "qkv/text/jinja/operators.h"

namespace qkv::jinja {
namespace {

std::string_view strip_space(std::string_view text) {
  const auto [begin, end] = stripped_range(text, nullptr, true, true);
  return text.substr(begin, end - begin);
}

int digit_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'z') return c - 'a' + 10;
  if (c >= 'A' && c <= 'Z') return c - 'A' + 10;
  return 99;
}

// Python allows single underscores between digits. Nullopt where they stand elsewhere.
std::optional<std::string> without_underscores(std::string_view text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      result += text[i];
      continue;
    }
    const auto digit = [&](size_t at) { return at < text.size() && text[at] >= '0' && text[at] <= '9'; };
    if (i == 0 || !digit(i - 1) || !digit(i + 1)) return std::nullopt;
  }
  return result;
}

}  // namespace

std::optional<int64_t> parse_integer(std::string_view text, int64_t base) {
  if (base != 0 && (base < 2 || base > 36)) value_error("int() base must be >= 2 and <= 36, or 0");
  text = strip_space(text);
  bool minus = false;
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) {
    minus = text[0] == '-';
    text.remove_prefix(1);
  }
  bool after_prefix = false;
  if (text.size() > 1 && text[0] == '0') {
    const char letter = static_cast<char>(text[1] | 0x20);
    const int64_t named = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 0;
    if (named != 0 && (base == named || base == 0)) {
      base = named;
      text.remove_prefix(2);
      after_prefix = true;
    } else if (base == 0 && text.find_first_not_of("0_") != std::string_view::npos) {
      return std::nullopt;  // "012" is ambiguous
    }
  }
  if (base == 0) base = 10;
  if (after_prefix && !text.empty() && text[0] == '_') text.remove_prefix(1);
  if (text.empty()) return std::nullopt;
  int64_t result = 0;
  bool digit_before = false, overflow = false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '_' && digit_before && i + 1 < text.size()) {
      digit_before = false;
      continue;
    }
    const int digit = digit_value(text[i]);
    if (digit >= base) return std::nullopt;
    digit_before = true;
    overflow = overflow || __builtin_mul_overflow(result, base, &result) ||
               __builtin_sub_overflow(result, static_cast<int64_t>(digit), &result);
  }
  if (overflow || (!minus && result == INT64_MIN))
    fail_as(FailureKind::limit, "an integer needs more than 64 bits");
  return minus ? result : -result;
}

std::optional<double> parse_real(std::string_view text) {
  text = strip_space(text);
  const auto plain = without_underscores(text);
  if (!plain || plain->empty()) return std::nullopt;
  std::string_view digits = *plain;
  bool minus = false;
  if (digits[0] == '-' || digits[0] == '+') {
    minus = digits[0] == '-';
    digits.remove_prefix(1);
  }
  std::string lower;
  for (const char c : digits) lower += static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  double value = 0;
  if (lower == "inf" || lower == "infinity") {
    value = HUGE_VAL;
  } else if (lower == "nan") {
    value = std::nan("");
  } else {
    if (lower.find_first_not_of("0123456789.e+-") != std::string::npos) return std::nullopt;
    if (lower.empty() || lower[0] == '+' || lower[0] == '-' || lower[0] == 'e') return std::nullopt;
    char* end = nullptr;
    value = std::strtod(lower.c_str(), &end);
    if (end != lower.c_str() + lower.size() || lower == ".") return std::nullopt;
  }
  return minus ? -value : value;
}

int64_t to_integer(const Value& value) {
  if (value.is_integral()) return value.integer();
  if (value.is(Kind::real)) {
    const double real = value.real();
    if (std::isnan(real)) value_error("cannot convert float NaN to integer");
    if (std::isinf(real)) fail_as(FailureKind::limit, "cannot convert float infinity to integer");
    if (!(real > -0x1p63 && real < 0x1p63)) fail_as(FailureKind::limit, "an integer needs more than 64 bits");
    return static_cast<int64_t>(real);
  }
  if (value.is_string()) {
    const auto parsed = parse_integer(value.text().bytes, 10);
    if (!parsed) value_error("invalid literal for int() with base 10: {}", quoted(value.text().bytes));
    return *parsed;
  }
  if (value.is(Kind::undefined)) value.fail_undefined();
  type_error("int() argument must be a string or a real number, not '{}'", type_name(value));
}

int64_t expect_integer(const Value& value, std::string_view what) {
  if (value.is_integral()) return value.integer();
  if (value.is(Kind::undefined)) type_error("{}: expected an integer, found an undefined value", what);
  type_error("{}: expected an integer, found '{}'", what, type_name(value));
}

const Text& expect_text(const Value& value, std::string_view what) {
  if (value.is_string()) return value.text();
  if (value.is(Kind::undefined)) value.fail_undefined();
  type_error("{}: expected a string, found '{}'", what, type_name(value));
}

}  // namespace qkv::jinja
