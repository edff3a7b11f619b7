// Case, stripping, replacing, splitting and joining.
#include "qkv/text/jinja/string_operations.h"

#include <algorithm>

#include "qkv/core/utf8.h"
#include "qkv/text/jinja/characters.h"
#include "qkv/text/jinja/operators.h"
#include "qkv/text/unicode.h"

namespace qkv::jinja {
namespace {

// Every character through change(out, c, begin, end); ASCII text without marks takes a short way.
template <typename Change>
Value map_characters(Heap& heap, const Text& text, Change&& change) {
  TextBuilder out(heap.budget());
  std::string changed;
  for (size_t i = 0; i < text.bytes.size();) {
    const size_t begin = i;
    const char32_t c = next_code_point(text.bytes, i).value_or(0xFFFD);
    change(changed, c, begin, i);
    if (text.marks.empty()) continue;
    out.append_instead(text, begin, i, changed);
    changed.clear();
  }
  out.append(changed);
  return out.finish(text.markup);
}

Value part(Heap& heap, const Text& text, size_t begin, size_t end) {
  heap.budget().step();
  TextBuilder out(heap.budget());
  out.append(text, begin, end);
  return out.finish(text.markup);
}

bool is_line_break(char32_t c) {
  return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

struct Piece {
  size_t begin, end;
};

// Runs of characters that are no white space.
std::vector<Piece> words(std::string_view bytes) {
  std::vector<Piece> result;
  bool inside = false;
  for (size_t i = 0; i < bytes.size();) {
    const size_t begin = i;
    const auto c = next_code_point(bytes, i);
    const bool space = c && is_space(*c);
    if (!space && !inside) result.push_back({begin, bytes.size()});
    if (space && inside) result.back().end = begin;
    inside = !space;
  }
  return result;
}

}  // namespace

Value to_upper(Heap& heap, const Text& text) {
  return map_characters(heap, text,
                        [](std::string& out, char32_t c, size_t, size_t) { append_upper(out, c); });
}

Value to_lower(Heap& heap, const Text& text) {
  return map_characters(heap, text, [&](std::string& out, char32_t, size_t begin, size_t end) {
    append_lower(out, text.bytes, begin, end);
  });
}

Value to_title(Heap& heap, const Text& text) {
  bool in_word = false;
  return map_characters(heap, text, [&](std::string& out, char32_t c, size_t begin, size_t end) {
    if (in_word) {
      append_lower(out, text.bytes, begin, end);
    } else {
      append_title(out, c);
    }
    in_word = is_cased(c);
  });
}

Value to_capitalized(Heap& heap, const Text& text) {
  return map_characters(heap, text, [&](std::string& out, char32_t c, size_t begin, size_t end) {
    if (begin == 0) {
      append_title(out, c);
    } else {
      append_lower(out, text.bytes, begin, end);
    }
  });
}

Value swap_case(Heap& heap, const Text& text) {
  return map_characters(heap, text, [&](std::string& out, char32_t c, size_t begin, size_t end) {
    if (is_upper(c)) {
      append_lower(out, text.bytes, begin, end);
    } else if (is_lower(c)) {
      append_upper(out, c);
    } else {
      append_utf8(out, c);
    }
  });
}

Value fold_case(Heap& heap, const Text& text) {
  return map_characters(heap, text,
                        [](std::string& out, char32_t c, size_t, size_t) { append_folded(out, c); });
}

Value strip(Heap& heap, const Text& text, const Value* set, bool left, bool right) {
  std::string_view characters;
  if (set != nullptr) characters = expect_text(*set, "strip").bytes;
  const auto [begin, end] = stripped_range(text.bytes, set != nullptr ? &characters : nullptr, left, right);
  return part(heap, text, begin, end);
}

Value replace_text(Heap& heap, const Text& text, const Text& from, const Text& to, int64_t count,
                   bool markup) {
  TextBuilder out(heap.budget());
  const auto append_new = [&] {
    heap.budget().step();
    out.append(to);
  };
  size_t done = 0;
  if (from.bytes.empty()) {  // between all characters, and at both ends
    for (size_t i = 0; count != 0; --count) {
      append_new();
      if (i == text.bytes.size()) break;
      next_code_point(text.bytes, i);
      out.append(text, done, i);
      done = i;
    }
  } else {
    for (size_t at = 0; count != 0 && (at = text.bytes.find(from.bytes, at)) != std::string::npos; --count) {
      out.append(text, done, at);
      append_new();
      at += from.bytes.size();
      done = at;
    }
  }
  out.append(text, done, text.bytes.size());
  return out.finish(markup);
}

Value pad(Heap& heap, const Text& text, int64_t width, std::string_view fill, Alignment alignment) {
  const int64_t missing = std::max<int64_t>(0, width - text.size());
  int64_t left = 0;
  if (alignment == Alignment::right) left = missing;
  // Python puts the odd one left if the width is odd.
  if (alignment == Alignment::center) left = missing / 2 + (missing & width & 1);
  TextBuilder out(heap.budget());
  out.repeat(fill, static_cast<uint64_t>(left));
  out.append(text);
  out.repeat(fill, static_cast<uint64_t>(missing - left));
  return out.finish(text.markup);
}

std::vector<Value> split(Heap& heap, const Text& text, const Text* separator, int64_t limit) {
  std::vector<Value> result;
  const std::string& bytes = text.bytes;
  if (separator == nullptr) {
    for (const Piece& word : words(bytes)) {
      if (limit >= 0 && static_cast<int64_t>(result.size()) == limit) {
        result.push_back(part(heap, text, word.begin, bytes.size()));
        break;
      }
      result.push_back(part(heap, text, word.begin, word.end));
    }
    return result;
  }
  if (separator->bytes.empty()) value_error("empty separator");
  size_t done = 0;
  while (limit < 0 || static_cast<int64_t>(result.size()) < limit) {
    const size_t at = bytes.find(separator->bytes, done);
    if (at == std::string::npos) break;
    result.push_back(part(heap, text, done, at));
    done = at + separator->bytes.size();
  }
  result.push_back(part(heap, text, done, bytes.size()));
  return result;
}

std::vector<Value> split_right(Heap& heap, const Text& text, const Text* separator, int64_t limit) {
  std::vector<Value> result;
  const std::string& bytes = text.bytes;
  if (separator == nullptr) {
    const std::vector<Piece> all = words(bytes);
    for (auto it = all.rbegin(); it != all.rend(); ++it) {
      if (limit >= 0 && static_cast<int64_t>(result.size()) == limit) {
        result.push_back(part(heap, text, 0, it->end));
        break;
      }
      result.push_back(part(heap, text, it->begin, it->end));
    }
  } else {
    if (separator->bytes.empty()) value_error("empty separator");
    size_t end = bytes.size();
    while (limit < 0 || static_cast<int64_t>(result.size()) < limit) {
      if (end < separator->bytes.size()) break;
      const size_t at = bytes.rfind(separator->bytes, end - separator->bytes.size());
      if (at == std::string::npos) break;
      result.push_back(part(heap, text, at + separator->bytes.size(), end));
      end = at;
    }
    result.push_back(part(heap, text, 0, end));
  }
  std::reverse(result.begin(), result.end());
  return result;
}

std::vector<Value> split_lines(Heap& heap, const Text& text, bool keep_ends) {
  std::vector<Value> result;
  size_t begin = 0;
  for (size_t i = 0; i < text.bytes.size();) {
    const size_t end = i;
    const char32_t c = next_code_point(text.bytes, i).value_or(0xFFFD);
    if (!is_line_break(c)) continue;
    if (c == '\r' && i < text.bytes.size() && text.bytes[i] == '\n') ++i;
    result.push_back(part(heap, text, begin, keep_ends ? i : end));
    begin = i;
  }
  if (begin < text.bytes.size()) result.push_back(part(heap, text, begin, text.bytes.size()));
  return result;
}

Value join(Heap& heap, const Text& separator, const Value& items, bool convert) {
  TextBuilder out(heap.budget());
  const bool markup = separator.markup && !convert;
  const auto iterator = iterate(heap, items);
  int64_t index = 0;
  for (Value item; iterator->next(item); ++index) {
    heap.budget().step();
    if (index > 0) out.append(separator);
    if (markup) {
      const TextPtr text = to_text(heap, item);
      if (text->markup) {
        out.append(*text);
      } else {
        append_escaped(out, *text);
      }
    } else if (convert || item.is_string()) {
      append_text(out, item);
    } else {
      type_error("sequence item {}: expected str instance, {} found", index, type_name(item));
    }
  }
  return out.finish(markup);
}

}  // namespace qkv::jinja
