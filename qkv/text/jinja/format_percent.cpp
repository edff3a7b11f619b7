// "%s and %(name)05.1f" % values.
#include <algorithm>
#include <cmath>

#include "qkv/core/utf8.h"
#include "qkv/text/jinja/format.h"
#include "qkv/text/jinja/format_specification.h"
#include "qkv/text/jinja/operators.h"

namespace qkv::jinja {
namespace {

class PercentFormatter {
 public:
  PercentFormatter(Heap& heap, const Text& format, const Value& values)
      : heap_(heap), format_(format), values_(values), out_(heap.budget()), markup_(format.markup) {
    if (values.is(Kind::tuple)) {
      positional_ = values.items();
    } else {
      positional_ = {values};
    }
  }

  Value run() {
    const std::string& text = format_.bytes;
    size_t done = 0;
    while ((position_ = text.find('%', done)) != std::string::npos) {
      out_.append(format_, done, position_);
      ++position_;
      conversion();
      done = position_;
    }
    out_.append(format_, done, text.size());
    // Values that could be looked into by name may be left over.
    const bool left_over_allowed = values_.is(Kind::dict) || values_.is(Kind::list) ||
                                   values_.is(Kind::undefined) || values_.is(Kind::range);
    if (next_ < positional_.size() && !left_over_allowed)
      type_error("not all arguments converted during string formatting");
    return out_.finish(markup_);
  }

 private:
  char current() const {
    if (position_ >= format_.bytes.size()) value_error("incomplete format");
    return format_.bytes[position_];
  }

  const Value& take() {
    if (by_name_) return named_;
    if (next_ >= positional_.size()) type_error("not enough arguments for format string");
    return positional_[next_++];
  }

  int64_t number_or_star() {
    if (current() == '*') {
      ++position_;
      const Value& value = take();
      if (!value.is_integral()) type_error("* wants int");
      return value.integer();
    }
    int64_t value = 0;
    while (current() >= '0' && current() <= '9') {
      if (value > INT32_MAX) value_error("width too big");
      value = value * 10 + (format_.bytes[position_++] - '0');
    }
    return value;
  }

  void conversion() {
    by_name_ = false;
    if (current() == '(') read_name();
    specification_ = {};
    zero_ = left_ = false;
    while (true) {
      const char flag = current();
      if (flag == '-') {
        left_ = true;
      } else if (flag == '+') {
        specification_.sign = '+';
      } else if (flag == ' ') {
        if (specification_.sign == '-') specification_.sign = ' ';
      } else if (flag == '#') {
        specification_.alternate = true;
      } else if (flag == '0') {
        zero_ = true;
      } else {
        break;
      }
      ++position_;
    }
    specification_.width = number_or_star();
    if (specification_.width < 0) {
      left_ = true;
      specification_.width = -std::max<int64_t>(specification_.width, -INT32_MAX);
    }
    if (current() == '.') {
      ++position_;
      specification_.precision = std::max<int64_t>(0, number_or_star());
    }
    if (current() == 'h' || current() == 'l' || current() == 'L') ++position_;
    const char type = current();
    ++position_;
    write(type);
  }

  void read_name() {
    if (!values_.is(Kind::dict)) type_error("format requires a mapping");
    int depth = 1;
    const size_t begin = ++position_;
    for (; depth > 0; ++position_) {
      if (position_ >= format_.bytes.size()) value_error("incomplete format key");
      if (format_.bytes[position_] == '(') ++depth;
      if (format_.bytes[position_] == ')') --depth;
    }
    const std::string name = format_.bytes.substr(begin, position_ - 1 - begin);
    const Value* found = values_.dict().find(name);
    if (found == nullptr) value_error("{} is not among the values to format", quoted(name));
    named_ = *found;
    by_name_ = true;
  }

  void write(char type) {
    if (type == '%') return out_.append("%");
    switch (type) {
      case 's':
      case 'r':
      case 'a':
        return write_text(type);
      case 'c':
        return write_character();
      case 'd':
      case 'i':
      case 'u':
      case 'o':
      case 'x':
      case 'X':
        return write_integer(type);
      case 'e':
      case 'E':
      case 'f':
      case 'F':
      case 'g':
      case 'G':
        return write_real(type);
      default:
        value_error("unsupported format character '{}'", type);
    }
  }

  // With the padding around; marks survive.
  void pad(const Text& body, std::string_view sign, bool number) {
    const int64_t missing =
        std::max<int64_t>(0, specification_.width - body.size() - static_cast<int64_t>(sign.size()));
    const bool zeros = zero_ && number && !left_;
    if (!left_ && !zeros) out_.repeat(" ", static_cast<uint64_t>(missing));
    out_.append(sign);
    if (zeros) out_.repeat("0", static_cast<uint64_t>(missing));
    out_.append(body);
    if (left_) out_.repeat(" ", static_cast<uint64_t>(missing));
  }

  void write_text(char type) {
    const Value& value = take();
    TextBuilder text(heap_.budget());
    if (type == 's') {
      append_text(text, value);
    } else {
      append_representation(text, value);
    }
    TextPtr body = text.finish();
    if (type == 'a') body = ascii_only(*body);
    if (markup_ && !(value.is_string() && value.text().markup)) {
      TextBuilder escaped(heap_.budget());
      append_escaped(escaped, *body);
      body = escaped.finish();
    }
    if (specification_.precision >= 0 && specification_.precision < body->size()) {
      TextBuilder cut(heap_.budget());
      cut.append(*body, 0, body->offset(specification_.precision));
      body = cut.finish();
    }
    pad(*body, "", false);
  }

  TextPtr ascii_only(const Text& text) {
    TextBuilder out(heap_.budget());
    for (size_t i = 0; i < text.bytes.size();) {
      const size_t begin = i;
      const auto c = static_cast<uint32_t>(next_code_point(text.bytes, i).value_or(0xFFFD));
      if (c < 0x80) {
        out.append(text, begin, i);
      } else {
        out.append_instead(text, begin, i,
                           c < 0x100     ? fmt::format("\\x{:02x}", c)
                           : c < 0x10000 ? fmt::format("\\u{:04x}", c)
                                         : fmt::format("\\U{:08x}", c));
      }
    }
    return out.finish();
  }

  void write_character() {
    const Value& value = take();
    std::string character;
    if (value.is_string() && value.text().size() == 1) {
      character = value.text().bytes;
    } else if (value.is_integral()) {
      const int64_t code = value.integer();
      if (code < 0 || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000))
        value_error("%c arg not in range(0x110000)");
      append_utf8(character, static_cast<char32_t>(code));
    } else {
      type_error("%c requires int or char");
    }
    pad(Text(std::move(character)), "", false);
  }

  std::string sign(bool negative) const {
    return negative ? "-" : specification_.sign == '-' ? "" : std::string(1, specification_.sign);
  }

  void write_integer(char type) {
    const Value& value = take();
    const bool decimal = type == 'd' || type == 'i' || type == 'u';
    if (value.is(Kind::undefined)) value.fail_undefined();
    if (decimal ? !value.is_number() : !value.is_integral()) {
      type_error("%{} format: {} is required, not {}", type, decimal ? "a real number" : "an integer",
                 type_name(value));
    }
    const int64_t integer = to_integer(value);
    std::string digits = magnitude(integer, decimal ? 10 : type == 'o' ? 8 : 16, type == 'X');
    const int64_t zeros = specification_.precision - static_cast<int64_t>(digits.size());
    if (zeros > 0) {
      heap_.budget().allocate(static_cast<uint64_t>(zeros));
      digits.insert(0, static_cast<size_t>(zeros), '0');
    }
    std::string prefix = sign(integer < 0);
    if (specification_.alternate && !decimal) prefix += std::string("0") + type;
    pad(Text(std::move(digits)), prefix, true);
  }

  void write_real(char type) {
    const Value& value = take();
    if (value.is(Kind::undefined)) value.fail_undefined();
    if (!value.is_number()) type_error("must be real number, not {}", type_name(value));
    const double real = value.to_double();
    pad(Text(format_magnitude(std::abs(real), type, specification_.precision, specification_.alternate)),
        sign(std::signbit(real) && !std::isnan(real)), true);
  }

  Heap& heap_;
  const Text& format_;
  const Value& values_;
  TextBuilder out_;
  bool markup_;
  std::vector<Value> positional_;
  size_t next_ = 0;
  size_t position_ = 0;
  bool by_name_ = false;
  Value named_;
  FormatSpecification specification_;
  bool zero_ = false, left_ = false;
};

}  // namespace

Value format_percent(Heap& heap, const Text& format, const Value& values) {
  return PercentFormatter(heap, format, values).run();
}

}  // namespace qkv::jinja
