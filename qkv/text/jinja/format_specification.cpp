// Format specifications: "{:>8.2f}".
#include "qkv/text/jinja/format_specification.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "qkv/core/utf8.h"
#include "qkv/text/jinja/failure.h"
#include "qkv/text/jinja/format.h"
#include "qkv/text/jinja/operators.h"

namespace qkv::jinja {
namespace {

constexpr int64_t kMaximumPrecision = 4000;  // of floats: more digits than any has

bool is_align(char c) {
  return c == '<' || c == '>' || c == '=' || c == '^';
}

int64_t read_number(std::string_view text, size_t& i) {
  int64_t value = 0;
  for (; i < text.size() && text[i] >= '0' && text[i] <= '9'; ++i) {
    if (value > INT32_MAX) value_error("Too many decimal digits in format string");
    value = value * 10 + (text[i] - '0');
  }
  return value;
}

// Pads with the specification's fill; `sign` stays in front of padding inside of a number.
void append_padded(TextBuilder& out, const Text& body, std::string_view sign,
                   const FormatSpecification& format, char align) {
  const int64_t missing =
      std::max<int64_t>(0, format.width - body.size() - static_cast<int64_t>(sign.size()));
  const int64_t left = align == '>' ? missing : align == '^' ? missing / 2 : 0;
  out.repeat(format.fill, static_cast<uint64_t>(left));
  out.append(sign);
  if (align == '=') out.repeat(format.fill, static_cast<uint64_t>(missing));
  out.append(body);
  if (align == '<' || align == '^') out.repeat(format.fill, static_cast<uint64_t>(missing - left));
}

std::string sign_of(bool negative, char sign) {
  return negative ? "-" : sign == '-' ? "" : std::string(1, sign);
}

void append_number(TextBuilder& out, std::string digits, std::string sign, const FormatSpecification& format,
                   size_t group) {
  size_t whole = digits.find_first_not_of("0123456789abcdefABCDEF");
  if (whole == std::string::npos) whole = digits.size();
  if (format.grouping != 0) {
    std::string head = digits.substr(0, whole);
    // Zeros that fill up the width are grouped as well.
    const bool zeros = format.fill == "0" && format.align == '=';
    const auto rest = static_cast<int64_t>(digits.size() - whole + sign.size());
    while (zeros &&
           static_cast<int64_t>(group_digits("0" + head, format.grouping, group).size()) + rest <=
               format.width &&
           head.size() < 4096)
      head = "0" + head;
    digits = group_digits(head, format.grouping, group) + digits.substr(whole);
  }
  append_padded(out, Text(std::move(digits)), sign, format, format.align == 0 ? '>' : format.align);
}

void append_integer(TextBuilder& out, int64_t value, const FormatSpecification& format) {
  if (format.precision >= 0) value_error("Precision not allowed in integer format specifier");
  std::string sign = sign_of(value < 0, format.sign);
  if (format.type == 'c') {
    if (value < 0 || value > 0x10FFFF || (value >= 0xD800 && value < 0xE000))
      value_error("%c arg not in range(0x110000)");
    std::string character;
    append_utf8(character, static_cast<char32_t>(value));
    return append_padded(out, Text(std::move(character)), "", format, format.align == 0 ? '<' : format.align);
  }
  const char type = format.type == 0 || format.type == 'n' ? 'd' : format.type;
  const int base = type == 'b' ? 2 : type == 'o' ? 8 : type == 'x' || type == 'X' ? 16 : 10;
  if (format.alternate && base != 10) sign += std::string("0") + type;
  append_number(out, magnitude(value, base, type == 'X'), sign, format, base == 10 ? 3 : 4);
}

// A float with a precision but no type: as "g", but with a digit after the point, and an exponent one digit
// earlier.
std::string general(double value, int64_t precision, bool alternate) {
  if (!std::isfinite(value)) return format_magnitude(value, 'g', precision, alternate);
  const std::string scientific = format_magnitude(value, 'e', precision - 1, alternate);
  const int exponent = std::stoi(scientific.substr(scientific.find('e') + 1));
  if (exponent >= precision - 1 && value != 0) {
    // "g" would drop zeros at the end.
    std::string mantissa = scientific.substr(0, scientific.find('e'));
    if (mantissa.find('.') != std::string::npos && !alternate) {
      mantissa.erase(mantissa.find_last_not_of('0') + 1);
      if (mantissa.ends_with('.')) mantissa.pop_back();
    }
    return mantissa + scientific.substr(scientific.find('e'));
  }
  std::string digits = format_magnitude(value, 'g', precision, alternate);
  if (digits.find_first_of(".e") == std::string::npos) digits += ".0";
  return digits;
}

void append_real(TextBuilder& out, double value, const FormatSpecification& format) {
  const bool negative = std::signbit(value) && !std::isnan(value);
  const double size = std::abs(value);
  std::string digits;
  if (format.type == 0) {
    digits = format.precision < 0 ? format_real(size)
                                  : general(size, std::max<int64_t>(1, format.precision), format.alternate);
  } else {
    digits =
        format_magnitude(size, format.type == 'n' ? 'g' : format.type, format.precision, format.alternate);
  }
  append_number(out, digits, sign_of(negative, format.sign), format, 3);
}

}  // namespace

FormatSpecification parse_format_specification(std::string_view text) {
  FormatSpecification result;
  size_t i = 0;
  size_t after_fill = 0;
  if (!text.empty()) next_code_point(text, after_fill);
  if (after_fill > 0 && after_fill < text.size() && is_align(text[after_fill])) {
    result.fill = text.substr(0, after_fill);
    result.align = text[after_fill];
    i = after_fill + 1;
  } else if (!text.empty() && is_align(text[0])) {
    result.align = text[0];
    i = 1;
  }
  const auto at = [&](char c) { return i < text.size() && text[i] == c; };
  if (at('+') || at('-') || at(' ')) result.sign = text[i++];
  if (at('z')) ++i;
  if (at('#')) {
    result.alternate = true;
    ++i;
  }
  if (at('0') && result.align == 0) {
    result.fill = "0";
    result.align = '=';
    ++i;
  }
  result.width = read_number(text, i);
  if (at(',') || at('_')) result.grouping = text[i++];
  if (at('.')) {
    const size_t begin = ++i;
    result.precision = read_number(text, i);
    if (i == begin) value_error("Format specifier missing precision");
  }
  if (i < text.size()) result.type = text[i++];
  if (i < text.size()) value_error("Invalid format specifier '{}'", text);
  return result;
}

std::string group_digits(std::string_view digits, char separator, size_t group) {
  std::string result;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % group == 0) result += separator;
    result += digits[i];
  }
  return result;
}

std::string magnitude(int64_t value, int base, bool upper) {
  uint64_t rest = value < 0 ? uint64_t{0} - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
  std::string digits;
  do {
    digits += (upper ? "0123456789ABCDEF" : "0123456789abcdef")[rest % static_cast<uint64_t>(base)];
    rest /= static_cast<uint64_t>(base);
  } while (rest != 0);
  std::reverse(digits.begin(), digits.end());
  return digits;
}

std::string format_magnitude(double value, char type, int64_t precision, bool alternate) {
  if (precision > kMaximumPrecision) value_error("precision too big: {}", precision);
  const bool upper = type >= 'A' && type <= 'Z';
  if (!std::isfinite(value)) {
    const std::string name = std::isnan(value) ? (upper ? "NAN" : "nan") : upper ? "INF" : "inf";
    return type == '%' ? name + "%" : name;
  }
  const char conversion = type == '%' || type == 'F' ? 'f' : type;
  if (type == '%') value *= 100;
  if (!std::isfinite(value)) return "inf%";
  std::string pattern = alternate ? "%#.*" : "%.*";
  pattern += conversion;
  char buffer[kMaximumPrecision + 400];
  std::snprintf(buffer, sizeof(buffer), pattern.c_str(), static_cast<int>(precision < 0 ? 6 : precision),
                value);
  return type == '%' ? std::string(buffer) + "%" : buffer;
}

void append_formatted(TextBuilder& out, const Value& value, std::string_view specification) {
  if (specification.empty()) return append_text(out, value);
  const FormatSpecification format = parse_format_specification(specification);
  const auto unknown = [&]() {
    value_error("Unknown format code '{}' for object of type '{}'", format.type, type_name(value));
  };
  if (value.is_string()) {
    if (format.type != 0 && format.type != 's') unknown();
    if (format.sign != '-') value_error("Sign not allowed in string format specifier");
    if (format.alternate) value_error("Alternate form (#) not allowed in string format specifier");
    if (format.align == '=' && format.fill != "0")
      value_error("'=' alignment not allowed in string format specifier");
    if (format.grouping != 0) value_error("Cannot specify '{}' with 's'.", format.grouping);
    const Text& text = value.text();
    TextBuilder body(out.budget());
    body.append(text, 0,
                format.precision >= 0 && format.precision < text.size() ? text.offset(format.precision)
                                                                        : text.bytes.size());
    const char align = format.align == 0 || format.align == '=' ? '<' : format.align;
    return append_padded(out, *body.finish(), "", format, align);
  }
  if (value.is(Kind::undefined)) type_error("unsupported format string passed to Undefined.__format__");
  if (!value.is_number()) type_error("unsupported format string passed to {}.__format__", type_name(value));
  const bool real_type =
      format.type != 0 && std::string_view("eEfFgG%").find(format.type) != std::string_view::npos;
  const bool integer_type =
      format.type == 0 || std::string_view("bcdoxXn").find(format.type) != std::string_view::npos;
  if (value.is(Kind::real)) {
    if (!real_type && format.type != 0 && format.type != 'n') unknown();
    return append_real(out, value.real(), format);
  }
  if (real_type) return append_real(out, value.to_double(), format);
  if (!integer_type) unknown();
  append_integer(out, value.integer(), format);
}

}  // namespace qkv::jinja
