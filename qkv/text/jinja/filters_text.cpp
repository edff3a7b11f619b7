// Filters that make text of text: case, trimming, replacing, escaping.
#include <algorithm>

#include "qkv/core/utf8.h"
#include "qkv/text/jinja/characters.h"
#include "qkv/text/jinja/filters.h"
#include "qkv/text/jinja/format.h"
#include "qkv/text/jinja/html.h"
#include "qkv/text/jinja/interpreter.h"
#include "qkv/text/jinja/operators.h"
#include "qkv/text/jinja/string_operations.h"

namespace qkv::jinja {
namespace {

// Filters begin with str(value).
TextPtr text_of(Interpreter& interpreter, const Value& value) {
  return to_text(interpreter.heap(), value);
}

Value upper(Interpreter& interpreter, const Value& value, CallArguments& arguments) {
  const Bound bound("upper", arguments, {});
  return to_upper(interpreter.heap(), *text_of(interpreter, value));
}

Value lower(Interpreter& interpreter, const Value& value, CallArguments& arguments) {
  const Bound bound("lower", arguments, {});
  return to_lower(interpreter.heap(), *text_of(interpreter, value));
}

Value capitalize(Interpreter& interpreter, const Value& value, CallArguments& arguments) {
  const Bound bound("capitalize", arguments, {});
  return to_capitalized(interpreter.heap(), *text_of(interpreter, value));
}

// Words begin after white space and after -({[<, unlike in str.title().
Value title(Interpreter& interpreter, const Value& value, CallArguments& arguments) {
  const Bound bound("title", arguments, {});
  const TextPtr text = text_of(interpreter, value);
  TextBuilder out(interpreter.budget());
  bool first = true;
  for (size_t i = 0; i < text->bytes.size();) {
    const size_t begin = i;
    const char32_t c = next_code_point(text->bytes, i).value_or(0xFFFD);
    std::string changed;
    if (first) {
      append_upper(changed, c);
    } else {
      append_lower(changed, text->bytes, begin, i);
    }
    out.append_instead(*text, begin, i, changed);
    first = is_space(c) ||
            (c < 0x80 && std::string_view("-({[<").find(static_cast<char>(c)) != std::string_view::npos);
  }
  return out.finish();
}

Value trim(Interpreter& interpreter, const Value& value, CallArguments& arguments) {
  const Bound bound("trim", arguments, {"chars"});
  return strip(interpreter.heap(), *text_of(interpreter, value), bound.some(0), true, true);
}

Value replace(Interpreter& interpreter, const Value& value, CallArguments& arguments) {
  const Bound bound("replace", arguments, {"old", "new", "count"}, 2);
  const Value* count = bound.some(2);
  const TextPtr text = text_of(interpreter, value), from = text_of(interpreter, bound[0]),
                to = text_of(interpreter, bound[1]);
  return replace_text(interpreter.heap(), *text, *from, *to,
                      count != nullptr ? expect_integer(*count, "replace") : -1, false);
}

Value string(Interpreter& interpreter, const Value& value, CallArguments& arguments) {
  const Bound bound("string", arguments, {});
  return text_of(interpreter, value);
}

Value safe(Interpreter& interpreter, const Value& value, CallArguments& arguments) {
  const Bound bound("safe", arguments, {});
  TextBuilder out(interpreter.budget());
  append_text(out, value);
  return out.finish(true);
}

Value escape(Interpreter& interpreter, const Value& value, CallArguments& arguments) {
  const Bound bound("escape", arguments, {});
  if (value.is_string() && value.text().markup) return value;
  TextBuilder out(interpreter.budget());
  append_escaped(out, *text_of(interpreter, value));
  return out.finish(true);
}

Value force_escape(Interpreter& interpreter, const Value& value, CallArguments& arguments) {
  const Bound bound("forceescape", arguments, {});
  TextBuilder out(interpreter.budget());
  append_escaped(out, *text_of(interpreter, value));
  return out.finish(true);
}

Value striptags(Interpreter& interpreter, const Value& value, CallArguments& arguments) {
  const Bound bound("striptags", arguments, {});
  return strip_tags(interpreter.heap(), *text_of(interpreter, value));
}

Value center(Interpreter& interpreter, const Value& value, CallArguments& arguments) {
  const Bound bound("center", arguments, {"width"});
  return pad(interpreter.heap(), *text_of(interpreter, value), bound.integer(0, 80), " ", Alignment::center);
}

Value format(Interpreter& interpreter, const Value& value, CallArguments& arguments) {
  if (!arguments.positional.empty() && !arguments.named.empty())
    type_error("can't handle positional and keyword arguments at the same time");
  Heap& heap = interpreter.heap();
  if (arguments.named.empty())
    return format_percent(heap, *text_of(interpreter, value), heap.tuple(arguments.positional));
  auto dict = std::make_shared<Dict>();
  for (const auto& [name, item] : arguments.named) dict->set(heap.text(name), item);
  return format_percent(heap, *text_of(interpreter, value), heap.dict(std::move(dict)));
}

Value wordcount(Interpreter& interpreter, const Value& value, CallArguments& arguments) {
  const Bound bound("wordcount", arguments, {});
  const TextPtr text = text_of(interpreter, value);
  int64_t words = 0;
  bool inside = false;
  for (size_t i = 0; i < text->bytes.size();) {
    const bool word = is_word(next_code_point(text->bytes, i).value_or(0xFFFD));
    if (word && !inside) ++words;
    inside = word;
  }
  return words;
}

void append_url_quoted(Interpreter& interpreter, TextBuilder& out, const Value& value, bool query) {
  const TextPtr text = text_of(interpreter, value);
  for (size_t i = 0; i < text->bytes.size(); ++i) {
    const char c = text->bytes[i];
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (letter || std::string_view("_.-~").find(c) != std::string_view::npos || (c == '/' && !query)) {
      out.append(*text, i, i + 1);
    } else {
      out.append_instead(
          *text, i, i + 1,
          c == ' ' && query ? "+" : fmt::format("%{:02X}", static_cast<unsigned>(static_cast<uint8_t>(c))));
    }
  }
}

Value urlencode(Interpreter& interpreter, const Value& value, CallArguments& arguments) {
  const Bound bound("urlencode", arguments, {});
  TextBuilder out(interpreter.budget());
  if (value.is_string() || !is_iterable(value)) {
    append_url_quoted(interpreter, out, value, false);
    return out.finish();
  }
  Heap& heap = interpreter.heap();
  const Value pairs = value.is(Kind::dict)
                          ? heap.view(std::static_pointer_cast<const Dict>(value.shared()), View::Part::items)
                          : value;
  const auto iterator = iterate(heap, pairs);
  for (Value pair; iterator->next(pair);) {
    const std::vector<Value> both = to_vector(heap, pair);
    if (both.size() != 2) value_error("urlencode: expected pairs, found {} items", both.size());
    if (out.size() > 0) out.append("&");
    append_url_quoted(interpreter, out, both[0], true);
    out.append("=");
    append_url_quoted(interpreter, out, both[1], true);
  }
  return out.finish();
}

Value xmlattr(Interpreter& interpreter, const Value& value, CallArguments& arguments) {
  const Bound bound("xmlattr", arguments, {"autospace"});
  if (value.is(Kind::undefined)) value.fail_undefined();
  if (!value.is(Kind::dict)) type_error("'{}' object has no attribute 'items'", type_name(value));
  TextBuilder out(interpreter.budget());
  for (const auto& [key, item] : value.dict().entries()) {
    if (item.is(Kind::none) || item.is(Kind::undefined)) continue;
    const Text& name = expect_text(key, "xmlattr");
    if (name.bytes.find_first_of(" \t\n\r\f\v/>=") != std::string::npos)
      value_error("Invalid character in attribute name: {}", quoted(name.bytes));
    if (out.size() > 0 || bound.flag(0, true)) out.append(" ");
    const auto append = [&](const Value& part) {
      const TextPtr text = text_of(interpreter, part);
      if (text->markup) {
        out.append(*text);
      } else {
        append_escaped(out, *text);
      }
    };
    append(key);
    out.append("=\"");
    append(item);
    out.append("\"");
  }
  return out.finish();
}

Value urlize(Interpreter&, const Value&, CallArguments&) {
  fail_as(FailureKind::unsupported, "the filter 'urlize' is not supported");
}

constexpr Named<Filter> kFilters[] = {{"upper", upper},
                                      {"lower", lower},
                                      {"capitalize", capitalize},
                                      {"title", title},
                                      {"trim", trim},
                                      {"replace", replace},
                                      {"string", string},
                                      {"safe", safe},
                                      {"escape", escape},
                                      {"e", escape},
                                      {"forceescape", force_escape},
                                      {"striptags", striptags},
                                      {"center", center},
                                      {"format", format},
                                      {"wordcount", wordcount},
                                      {"urlencode", urlencode},
                                      {"xmlattr", xmlattr},
                                      {"urlize", urlize}};

}  // namespace

std::span<const Named<Filter>> text_filters() {
  return kFilters;
}

}  // namespace qkv::jinja
