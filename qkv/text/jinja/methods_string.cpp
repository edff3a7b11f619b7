// Python's str methods. On markup they give markup, and escape what they take in.
#include <algorithm>

#include "qkv/core/utf8.h"
#include "qkv/text/jinja/characters.h"
#include "qkv/text/jinja/filters.h"
#include "qkv/text/jinja/format.h"
#include "qkv/text/jinja/interpreter.h"
#include "qkv/text/jinja/operators.h"
#include "qkv/text/jinja/string_operations.h"

namespace qkv::jinja {
namespace {

template <Value (*Change)(Heap&, const Text&)>
Value changed(Interpreter& interpreter, const Value& self, CallArguments& arguments) {
  const Bound bound("str method", arguments, {});
  return Change(interpreter.heap(), self.text());
}

// What a method of markup takes in is escaped first.
Value argument_of(Interpreter& interpreter, const Value& self, const Value& argument) {
  if (!self.text().markup || !argument.is_string() || argument.text().markup) return argument;
  TextBuilder out(interpreter.budget());
  append_escaped(out, argument.text());
  return out.finish(true);
}

template <bool Left, bool Right>
Value stripped(Interpreter& interpreter, const Value& self, CallArguments& arguments) {
  const Bound bound("strip", arguments, {""});
  if (bound.some(0) == nullptr) return strip(interpreter.heap(), self.text(), nullptr, Left, Right);
  const Value characters = argument_of(interpreter, self, bound[0]);
  return strip(interpreter.heap(), self.text(), &characters, Left, Right);
}

template <bool FromRight>
Value split_text(Interpreter& interpreter, const Value& self, CallArguments& arguments) {
  const Bound bound(FromRight ? "rsplit" : "split", arguments, {"sep", "maxsplit"});
  Heap& heap = interpreter.heap();
  const Text* separator = bound.some(0) != nullptr ? &expect_text(bound[0], "split") : nullptr;
  const int64_t limit = bound.integer(1, -1);
  return heap.list(FromRight ? split_right(heap, self.text(), separator, limit)
                             : split(heap, self.text(), separator, limit));
}

Value splitlines(Interpreter& interpreter, const Value& self, CallArguments& arguments) {
  const Bound bound("splitlines", arguments, {"keepends"});
  return interpreter.heap().list(split_lines(interpreter.heap(), self.text(), bound.flag(0, false)));
}

template <bool FromRight>
Value partition(Interpreter& interpreter, const Value& self, CallArguments& arguments) {
  const Bound bound("partition", arguments, {""}, 1);
  Heap& heap = interpreter.heap();
  const Text& text = self.text();
  const Value argument = argument_of(interpreter, self, bound[0]);
  const Text& separator = expect_text(argument, "partition");
  if (separator.bytes.empty()) value_error("empty separator");
  const size_t at = FromRight ? text.bytes.rfind(separator.bytes) : text.bytes.find(separator.bytes);
  const auto part = [&](size_t begin, size_t end) {
    TextBuilder out(heap.budget());
    out.append(text, begin, end);
    return Value(out.finish(text.markup));
  };
  const size_t size = text.bytes.size();
  if (at == std::string::npos) {
    if (FromRight) return heap.tuple({part(0, 0), part(0, 0), self});
    return heap.tuple({self, part(0, 0), part(0, 0)});
  }
  const size_t end = at + separator.bytes.size();
  return heap.tuple({part(0, at), part(at, end), part(end, size)});
}

Value join_method(Interpreter& interpreter, const Value& self, CallArguments& arguments) {
  const Bound bound("join", arguments, {""}, 1);
  if (!is_iterable(bound[0])) type_error("can only join an iterable");
  return join(interpreter.heap(), self.text(), bound[0], false);
}

Value replace_method(Interpreter& interpreter, const Value& self, CallArguments& arguments) {
  const Bound bound("replace", arguments, {"", "", ""}, 2);
  const Value from = argument_of(interpreter, self, bound[0]), to = argument_of(interpreter, self, bound[1]);
  return replace_text(interpreter.heap(), self.text(), expect_text(from, "replace"),
                      expect_text(to, "replace"), bound.integer(2, -1), self.text().markup);
}

// The part of `text` between the optional arguments start and end, in bytes; nullopt if start is past the
// end.
std::optional<std::pair<size_t, size_t>> range_of(const Text& text, const Bound& bound, size_t first) {
  const int64_t size = text.size();
  const auto index = [&](size_t i, int64_t fallback) {
    const Value* value = bound.some(i);
    if (value == nullptr) return fallback;
    const int64_t at = expect_integer(*value, "a position");
    return at < 0 ? std::max<int64_t>(0, at + size) : at;
  };
  const int64_t begin = index(first, 0), end = std::min(index(first + 1, size), size);
  if (begin > end) return std::nullopt;
  return std::pair(text.offset(begin), text.offset(end));
}

// The position in characters where the argument is found, or -1.
int64_t find_position(const Value& self, const Bound& bound, bool from_right) {
  const Text& text = self.text();
  const std::string& needle = expect_text(bound[0], "find").bytes;
  const auto range = range_of(text, bound, 1);
  if (!range) return -1;
  const std::string_view within = std::string_view(text.bytes).substr(0, range->second);
  size_t at = from_right ? within.rfind(needle) : within.find(needle, range->first);
  if (at == std::string_view::npos || at < range->first) return -1;
  if (text.ascii()) return static_cast<int64_t>(at);
  return Text(std::string(within.substr(0, at))).size();
}

template <bool FromRight>
Value find_method_of(Interpreter&, const Value& self, CallArguments& arguments) {
  const Bound bound("find", arguments, {"", "", ""}, 1);
  return find_position(self, bound, FromRight);
}

template <bool FromRight>
Value index(Interpreter&, const Value& self, CallArguments& arguments) {
  const Bound bound("index", arguments, {"", "", ""}, 1);
  const int64_t at = find_position(self, bound, FromRight);
  if (at < 0) value_error("substring not found");
  return at;
}

Value count(Interpreter& interpreter, const Value& self, CallArguments& arguments) {
  const Bound bound("count", arguments, {"", "", ""}, 1);
  const Text& text = self.text();
  const std::string& needle = expect_text(bound[0], "count").bytes;
  const auto range = range_of(text, bound, 1);
  if (!range) return int64_t{0};
  const std::string_view within =
      std::string_view(text.bytes).substr(range->first, range->second - range->first);
  if (needle.empty()) return Text(std::string(within)).size() + 1;
  int64_t found = 0;
  for (size_t at = 0; (at = within.find(needle, at)) != std::string_view::npos; at += needle.size()) {
    interpreter.budget().step();
    ++found;
  }
  return found;
}

template <bool AtEnd>
Value begins_or_ends(Interpreter&, const Value& self, CallArguments& arguments) {
  const std::string_view name = AtEnd ? "endswith" : "startswith";
  const Bound bound(name, arguments, {"", "", ""}, 1);
  const Text& text = self.text();
  const auto range = range_of(text, bound, 1);
  if (!bound[0].is_string() && !bound[0].is(Kind::tuple))
    type_error("{} first arg must be str or a tuple of str, not {}", name, type_name(bound[0]));
  const std::vector<Value> candidates =
      bound[0].is_string() ? std::vector<Value>{bound[0]} : bound[0].items();
  for (const Value& candidate : candidates) {
    if (!candidate.is_string())
      type_error("tuple for {} must only contain str, not {}", name, type_name(candidate));
    if (!range) continue;
    const std::string_view within =
        std::string_view(text.bytes).substr(range->first, range->second - range->first);
    if (AtEnd ? within.ends_with(candidate.text().bytes) : within.starts_with(candidate.text().bytes))
      return Value(true);
  }
  return Value(false);
}

template <bool AtEnd>
Value remove_affix(Interpreter& interpreter, const Value& self, CallArguments& arguments) {
  const Bound bound(AtEnd ? "removesuffix" : "removeprefix", arguments, {""}, 1);
  const Text& text = self.text();
  const std::string& affix = expect_text(bound[0], "removeprefix").bytes;
  const bool found = AtEnd ? text.bytes.ends_with(affix) : text.bytes.starts_with(affix);
  const size_t size = text.bytes.size(), cut = found ? affix.size() : 0;
  TextBuilder out(interpreter.budget());
  out.append(text, AtEnd ? 0 : cut, AtEnd ? size - cut : size);
  return out.finish(text.markup);
}

template <Alignment alignment>
Value padded(Interpreter& interpreter, const Value& self, CallArguments& arguments) {
  const Bound bound("justify", arguments, {"", ""}, 1);
  const Text space(" ");
  const Text& fill = bound.get(1) != nullptr ? expect_text(bound[1], "the fill character") : space;
  if (fill.size() != 1) type_error("The fill character must be exactly one character long");
  return pad(interpreter.heap(), self.text(), bound.integer(0, 0), fill.bytes, alignment);
}

Value zfill(Interpreter& interpreter, const Value& self, CallArguments& arguments) {
  const Bound bound("zfill", arguments, {""}, 1);
  const Text& text = self.text();
  const size_t sign = !text.bytes.empty() && (text.bytes[0] == '+' || text.bytes[0] == '-') ? 1 : 0;
  TextBuilder out(interpreter.budget());
  out.append(text, 0, sign);
  out.repeat("0", static_cast<uint64_t>(std::max<int64_t>(0, bound.integer(0, 0) - text.size())));
  out.append(text, sign, text.bytes.size());
  return out.finish(text.markup);
}

Value expandtabs(Interpreter& interpreter, const Value& self, CallArguments& arguments) {
  const Bound bound("expandtabs", arguments, {"tabsize"});
  const int64_t width = bound.integer(0, 8);
  const Text& text = self.text();
  TextBuilder out(interpreter.budget());
  int64_t column = 0;
  for (size_t i = 0; i < text.bytes.size();) {
    const size_t begin = i;
    const char32_t c = next_code_point(text.bytes, i).value_or(0xFFFD);
    if (c == '\t') {
      const int64_t spaces = width > 0 ? width - column % width : 0;
      out.repeat(" ", static_cast<uint64_t>(spaces));
      column += spaces;
    } else {
      out.append(text, begin, i);
      column = c == '\n' || c == '\r' ? 0 : column + 1;
    }
  }
  return out.finish(text.markup);
}

Value format(Interpreter& interpreter, const Value& self, CallArguments& arguments) {
  return format_braces(interpreter, self.text(), arguments);
}

Value format_map(Interpreter& interpreter, const Value& self, CallArguments& arguments) {
  const Bound bound("format_map", arguments, {""}, 1);
  if (!bound[0].is(Kind::dict)) type_error("format_map: expected a mapping, found '{}'", type_name(bound[0]));
  CallArguments named;
  for (const auto& [key, value] : bound[0].dict().entries()) {
    if (key.is_string()) named.named.emplace_back(key.text().bytes, value);
  }
  return format_braces(interpreter, self.text(), named);
}

Value refused(Interpreter&, const Value&, CallArguments&) {
  fail_as(FailureKind::unsupported, "encode, translate and maketrans are not supported");
}

constexpr Named<Method> kMethods[] = {{"upper", changed<to_upper>},
                                      {"lower", changed<to_lower>},
                                      {"title", changed<to_title>},
                                      {"capitalize", changed<to_capitalized>},
                                      {"swapcase", changed<swap_case>},
                                      {"casefold", changed<fold_case>},
                                      {"strip", stripped<true, true>},
                                      {"lstrip", stripped<true, false>},
                                      {"rstrip", stripped<false, true>},
                                      {"split", split_text<false>},
                                      {"rsplit", split_text<true>},
                                      {"splitlines", splitlines},
                                      {"partition", partition<false>},
                                      {"rpartition", partition<true>},
                                      {"join", join_method},
                                      {"replace", replace_method},
                                      {"find", find_method_of<false>},
                                      {"rfind", find_method_of<true>},
                                      {"index", index<false>},
                                      {"rindex", index<true>},
                                      {"count", count},
                                      {"startswith", begins_or_ends<false>},
                                      {"endswith", begins_or_ends<true>},
                                      {"removeprefix", remove_affix<false>},
                                      {"removesuffix", remove_affix<true>},
                                      {"ljust", padded<Alignment::left>},
                                      {"rjust", padded<Alignment::right>},
                                      {"center", padded<Alignment::center>},
                                      {"zfill", zfill},
                                      {"expandtabs", expandtabs},
                                      {"format", format},
                                      {"format_map", format_map},
                                      {"encode", refused},
                                      {"translate", refused},
                                      {"maketrans", refused}};

}  // namespace

std::span<const Named<Method>> string_methods() {
  return kMethods;
}

}  // namespace qkv::jinja
