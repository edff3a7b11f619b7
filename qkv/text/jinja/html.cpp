// striptags: comments, then tags, then white space, then entities.
#include "qkv/text/jinja/html.h"

#include <algorithm>
#include <charconv>

#include "qkv/core/utf8.h"
#include "qkv/text/jinja/operators.h"
#include "qkv/text/jinja/string_operations.h"

namespace qkv::jinja {
namespace {

// Text without what begins with `open` and ends with the next `close`.
TextPtr without(Heap& heap, const Text& text, std::string_view open, std::string_view close) {
  TextBuilder out(heap.budget());
  size_t done = 0;
  for (size_t at = 0; (at = text.bytes.find(open, at)) != std::string::npos;) {
    const size_t end = text.bytes.find(close, at + open.size());
    if (end == std::string::npos) break;
    out.append(text, done, at);
    at = done = end + close.size();
  }
  out.append(text, done, text.bytes.size());
  return out.finish();
}

constexpr size_t kLongestEntity = 16;

struct Entity {
  std::string_view name;
  char32_t character;
};
constexpr Entity kEntities[] = {{"amp", '&'},       {"lt", '<'},       {"gt", '>'},       {"quot", '"'},
                                {"apos", '\''},     {"nbsp", 0xA0},    {"copy", 0xA9},    {"reg", 0xAE},
                                {"laquo", 0xAB},    {"raquo", 0xBB},   {"ndash", 0x2013}, {"mdash", 0x2014},
                                {"hellip", 0x2026}, {"lsquo", 0x2018}, {"rsquo", 0x2019}, {"ldquo", 0x201C},
                                {"rdquo", 0x201D},  {"bull", 0x2022},  {"euro", 0x20AC}};

// The character that `name` (between & and ;) stands for; 0 if it is none that we know.
char32_t entity(std::string_view name) {
  if (name.starts_with('#')) {
    const bool hexadecimal = name.size() > 1 && (name[1] == 'x' || name[1] == 'X');
    const std::string_view digits = name.substr(hexadecimal ? 2 : 1);
    uint32_t value = 0;
    const auto [stop, code] =
        std::from_chars(digits.data(), digits.data() + digits.size(), value, hexadecimal ? 16 : 10);
    if (code != std::errc() || stop != digits.data() + digits.size() || digits.empty()) return 0;
    if (value == 0 || value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) return 0xFFFD;
    return value;
  }
  const auto* it = std::find_if(std::begin(kEntities), std::end(kEntities),
                                [&](const Entity& e) { return e.name == name; });
  return it == std::end(kEntities) ? 0 : it->character;
}

TextPtr without_entities(Heap& heap, const Text& text) {
  TextBuilder out(heap.budget());
  size_t done = 0;
  for (size_t at = 0; (at = text.bytes.find('&', at)) != std::string::npos; ++at) {
    const size_t size = std::string_view(text.bytes).substr(at, kLongestEntity).find(';');
    if (size == std::string_view::npos) continue;
    const size_t end = at + size;
    const char32_t c = entity(std::string_view(text.bytes).substr(at + 1, size - 1));
    if (c == 0) continue;
    std::string character;
    append_utf8(character, c);
    out.append(text, done, at);
    out.append_instead(text, at, end + 1, character);
    done = end + 1;
    at = end;
  }
  out.append(text, done, text.bytes.size());
  return out.finish();
}

}  // namespace

Value strip_tags(Heap& heap, const Text& text) {
  const TextPtr plain = without(heap, *without(heap, text, "<!--", "-->"), "<", ">");
  const Value words = heap.list(split(heap, *plain, nullptr, -1));
  return without_entities(heap, join(heap, Text(" "), words, true).text());
}

}  // namespace qkv::jinja
