// str() and repr() as Python prints them.
#include <charconv>
#include <cmath>

#include "qkv/core/utf8.h"
#include "qkv/text/jinja/characters.h"
#include "qkv/text/jinja/operators.h"

namespace qkv::jinja {
namespace {

constexpr int kMaximumDepth = 700;  // more than values nest: only a namespace can hold itself

void append_items(TextBuilder& out, const std::vector<Value>& items, int depth) {
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out.append(", ");
    append_representation(out, items[i], depth + 1);
  }
}

void append_dict(TextBuilder& out, const Dict& dict, int depth) {
  out.append("{");
  bool first = true;
  for (const auto& [key, value] : dict.entries()) {
    if (!first) out.append(", ");
    first = false;
    append_representation(out, key, depth + 1);
    out.append(": ");
    append_representation(out, value, depth + 1);
  }
  out.append("}");
}

void append_view(TextBuilder& out, const Value& value, int depth) {
  const View& view = value.view();
  out.append(type_name(value));
  out.append("([");
  bool first = true;
  for (const auto& [key, item] : view.dict->entries()) {
    if (!first) out.append(", ");
    first = false;
    const bool pair = view.part == View::Part::items;
    if (pair) out.append("(");
    if (view.part != View::Part::values) append_representation(out, key, depth + 1);
    if (pair) out.append(", ");
    if (view.part != View::Part::keys) append_representation(out, item, depth + 1);
    if (pair) out.append(")");
  }
  out.append("])");
}

void append_namespace(TextBuilder& out, const Namespace& name_space, int depth) {
  out.append("<Namespace {");
  bool first = true;
  for (const auto& [name, value] : name_space.attributes) {
    if (!first) out.append(", ");
    first = false;
    append_quoted(out, Text(name));
    out.append(": ");
    append_representation(out, value, depth + 1);
  }
  out.append("}>");
}

}  // namespace

std::string format_real(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[40];
  const auto [end, code] =
      std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::scientific);
  const std::string_view text(buffer, static_cast<size_t>(end - buffer));
  const size_t e = text.find('e');
  int exponent = 0;
  std::from_chars(text.data() + e + (text[e + 1] == '+' ? 2 : 1), text.data() + text.size(), exponent);
  std::string digits;
  for (const char c : text.substr(0, e)) {
    if (c >= '0' && c <= '9') digits += c;
  }
  std::string result = text[0] == '-' ? "-" : "";
  const int size = static_cast<int>(digits.size());
  if (exponent < -4 || exponent >= 16) {
    result += digits[0];
    if (size > 1) result += "." + digits.substr(1);
    return result + fmt::format("e{}{:02}", exponent < 0 ? '-' : '+', std::abs(exponent));
  }
  if (exponent < 0) return result + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  if (size <= exponent + 1)
    return result + digits + std::string(static_cast<size_t>(exponent + 1 - size), '0') + ".0";
  return result + digits.substr(0, static_cast<size_t>(exponent) + 1) + "." +
         digits.substr(static_cast<size_t>(exponent) + 1);
}

void append_quoted(TextBuilder& out, const Text& text) {
  const std::string_view bytes = text.bytes;
  const bool has_single = bytes.find('\'') != std::string_view::npos;
  const char quote = has_single && bytes.find('"') == std::string_view::npos ? '"' : '\'';
  out.append(quote);
  size_t done = 0;
  for (size_t i = 0; i < bytes.size();) {
    const size_t begin = i;
    const char32_t c = next_code_point(bytes, i).value_or(0xFFFD);
    std::string escape;
    if (c == static_cast<char32_t>(quote) || c == '\\') {
      escape = {'\\', static_cast<char>(c)};
    } else if (c == '\n') {
      escape = "\\n";
    } else if (c == '\r') {
      escape = "\\r";
    } else if (c == '\t') {
      escape = "\\t";
    } else if (c < 0x20 || c >= 0x7F) {
      if (is_printable(c)) continue;
      escape = c < 0x100     ? fmt::format("\\x{:02x}", static_cast<uint32_t>(c))
               : c < 0x10000 ? fmt::format("\\u{:04x}", static_cast<uint32_t>(c))
                             : fmt::format("\\U{:08x}", static_cast<uint32_t>(c));
    } else {
      continue;
    }
    out.append(text, done, begin);
    out.append_instead(text, begin, i, escape);
    done = i;
  }
  out.append(text, done, bytes.size());
  out.append(quote);
}

std::string quoted(std::string_view text) {
  Budget budget(UINT64_MAX, UINT64_MAX);
  TextBuilder out(budget);
  append_quoted(out, Text(std::string(text)));
  return std::string(out.bytes());
}

void append_representation(TextBuilder& out, const Value& value, int depth) {
  if (depth > kMaximumDepth) fail_as(FailureKind::limit, "a value that holds itself cannot be printed");
  const size_t begin = out.size();
  switch (value.kind()) {
    case Kind::missing:
    case Kind::undefined:
      out.append("Undefined");
      break;
    case Kind::none:
      out.append("None");
      break;
    case Kind::boolean:
      out.append(value.boolean() ? "True" : "False");
      break;
    case Kind::integer:
      out.append(std::to_string(value.integer()));
      break;
    case Kind::real:
      out.append(format_real(value.real()));
      break;
    case Kind::string:
      if (value.text().markup) out.append("Markup(");
      append_quoted(out, value.text());
      if (value.text().markup) out.append(")");
      return;
    case Kind::list:
      out.append("[");
      append_items(out, value.items(), depth);
      out.append("]");
      break;
    case Kind::tuple:
      out.append("(");
      append_items(out, value.items(), depth);
      out.append(value.items().size() == 1 ? ",)" : ")");
      break;
    case Kind::dict:
      append_dict(out, value.dict(), depth);
      break;
    case Kind::view:
      append_view(out, value, depth);
      break;
    case Kind::range: {
      const Range& range = value.range();
      out.append(range.step == 1 ? fmt::format("range({}, {})", range.start, range.stop)
                                 : fmt::format("range({}, {}, {})", range.start, range.stop, range.step));
      break;
    }
    case Kind::iterator:
      out.append(fmt::format("<{} object>", value.iterator().type_name()));
      break;
    case Kind::name_space:
      append_namespace(out, value.name_space(), depth);
      break;
    case Kind::special:
      out.append(value.special().representation());
      break;
  }
  out.mark_from(begin, value.tag());
}

std::string representation(const Value& value) {
  Budget budget(UINT64_MAX, UINT64_MAX);
  TextBuilder out(budget);
  append_representation(out, value);
  return std::string(out.bytes());
}

void append_text(TextBuilder& out, const Value& value) {
  if (value.is_string()) {
    out.append(value.text());
  } else if (!value.is(Kind::undefined) && !value.is(Kind::missing)) {
    append_representation(out, value);
  }
}

TextPtr to_text(Heap& heap, const Value& value) {
  if (value.is_string()) return std::static_pointer_cast<const Text>(value.shared());
  TextBuilder out(heap.budget());
  append_text(out, value);
  return out.finish();
}

std::string object_name(const Value& value) {
  switch (value.kind()) {
    case Kind::none:
      return "None";
    case Kind::name_space:
      return "jinja2.utils.Namespace object";
    case Kind::string:
      if (value.text().markup) return "markupsafe.Markup object";
      break;
    default:
      break;
  }
  return fmt::format("{} object", type_name(value));
}

}  // namespace qkv::jinja
