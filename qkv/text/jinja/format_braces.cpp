// "{} and {name[0]!r:>8}".format(...). Fields are looked up as the sandbox looks up attributes.
#include <algorithm>

#include "qkv/text/jinja/format.h"
#include "qkv/text/jinja/interpreter.h"
#include "qkv/text/jinja/operators.h"

namespace qkv::jinja {
namespace {

class BraceFormatter {
 public:
  BraceFormatter(Interpreter& interpreter, const CallArguments& arguments)
      : interpreter_(interpreter), arguments_(arguments) {}

  // Nested fields are allowed in specifications, once.
  void run(TextBuilder& out, const Text& format, int depth) {
    if (depth > 1) value_error("Max string recursion exceeded");
    const std::string_view text = format.bytes;
    size_t done = 0;
    for (size_t i = 0; i < text.size();) {
      if (text[i] != '{' && text[i] != '}') {
        ++i;
        continue;
      }
      interpreter_.budget().step();
      out.append(format, done, i);
      if (i + 1 < text.size() && text[i + 1] == text[i]) {
        out.append(format, i, i + 1);
        i += 2;
      } else if (text[i] == '}') {
        value_error("Single '}}' encountered in format string");
      } else {
        const size_t end = end_of_field(text, i + 1);
        field(out, text.substr(i + 1, end - i - 1), format.markup, depth);
        i = end + 1;
      }
      done = i;
    }
    out.append(format, done, text.size());
  }

 private:
  static size_t end_of_field(std::string_view text, size_t begin) {
    int depth = 1;
    bool in_brackets = false;
    for (size_t i = begin; i < text.size(); ++i) {
      if (text[i] == '[') in_brackets = true;
      if (text[i] == ']') in_brackets = false;
      if (in_brackets) continue;
      if (text[i] == '{') ++depth;
      if (text[i] == '}' && --depth == 0) return i;
    }
    value_error("expected '}}' before end of string");
  }

  void field(TextBuilder& out, std::string_view text, bool markup, int depth) {
    // name [! conversion] [: specification]; a name's subscripts may hold both signs.
    size_t end = 0;
    bool in_brackets = false;
    for (; end < text.size(); ++end) {
      if (text[end] == '[') in_brackets = true;
      if (text[end] == ']') in_brackets = false;
      if (!in_brackets && (text[end] == '!' || text[end] == ':')) break;
    }
    const std::string_view name = text.substr(0, end);
    char conversion = 0;
    if (end < text.size() && text[end] == '!') {
      if (end + 1 >= text.size()) value_error("end of string while looking for conversion specifier");
      conversion = text[end + 1];
      end += 2;
      if (end < text.size() && text[end] != ':') value_error("expected ':' after conversion specifier");
    }
    Value value = look_up(name);
    TextBuilder specification(interpreter_.budget());
    if (end < text.size()) run(specification, Text(std::string(text.substr(end + 1))), depth + 1);
    if (conversion != 0) value = convert(value, conversion);
    const bool escape = markup && !(value.is_string() && value.text().markup);
    if (!escape) return append_formatted(out, value, specification.bytes());
    TextBuilder plain(interpreter_.budget());
    append_formatted(plain, value, specification.bytes());
    append_escaped(out, *plain.finish());
  }

  Value convert(const Value& value, char conversion) {
    TextBuilder out(interpreter_.budget());
    if (conversion == 's') {
      append_text(out, value);
    } else if (conversion == 'r' || conversion == 'a') {
      append_representation(out, value);
    } else {
      value_error("Unknown conversion specifier '{}'", conversion);
    }
    return out.finish();
  }

  static bool is_number(std::string_view text) {
    return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
  }

  Value look_up(std::string_view name) {
    const size_t first_end = std::min(name.find_first_of(".["), name.size());
    Value value = first(name.substr(0, first_end));
    for (size_t i = first_end; i < name.size();) {
      interpreter_.budget().step();
      if (name[i] == '.') {
        const size_t end = std::min(name.find_first_of(".[", i + 1), name.size());
        if (end == i + 1) value_error("Empty attribute in format string");
        value = interpreter_.attribute(value, name.substr(i + 1, end - i - 1));
        i = end;
      } else if (name[i] == '[') {
        const size_t end = name.find(']', i);
        if (end == std::string_view::npos) value_error("Missing ']' in format string");
        const std::string_view key = name.substr(i + 1, end - i - 1);
        if (key.empty()) value_error("Empty attribute in format string");
        value = interpreter_.item(
            value, is_number(key) ? Value(*parse_integer(key, 10)) : interpreter_.heap().text(key));
        i = end + 1;
      } else {
        value_error("Only '.' or '[' may follow ']' in format field specifier");
      }
    }
    return value;
  }

  Value first(std::string_view name) {
    if (!name.empty() && !is_number(name)) {
      for (const auto& [key, value] : arguments_.named) {
        if (key == name) return value;
      }
      value_error("{} is not among the values to format", quoted(name));
    }
    const bool automatic = name.empty();
    if (numbering_ != 0 && numbering_ != (automatic ? 1 : 2))
      value_error("cannot switch between manual field specification and automatic field numbering");
    numbering_ = automatic ? 1 : 2;
    const int64_t index = automatic ? next_++ : *parse_integer(name, 10);
    if (index >= static_cast<int64_t>(arguments_.positional.size()))
      value_error("Replacement index {} out of range for positional args tuple", index);
    return arguments_.positional[static_cast<size_t>(index)];
  }

  Interpreter& interpreter_;
  const CallArguments& arguments_;
  int64_t next_ = 0;
  int numbering_ = 0;  // 1: automatic, 2: by number
};

}  // namespace

Value format_braces(Interpreter& interpreter, const Text& format, const CallArguments& arguments) {
  TextBuilder out(interpreter.budget());
  BraceFormatter(interpreter, arguments).run(out, format, 0);
  return out.finish(format.markup);
}

}  // namespace qkv::jinja
