// Filters that lay text out: indent, truncate, wordwrap.
#include <algorithm>

#include "qkv/core/utf8.h"
#include "qkv/text/jinja/characters.h"
#include "qkv/text/jinja/filters.h"
#include "qkv/text/jinja/interpreter.h"
#include "qkv/text/jinja/operators.h"
#include "qkv/text/jinja/string_operations.h"

namespace qkv::jinja {
namespace {

Value indent(Interpreter& interpreter, const Value& value, CallArguments& arguments) {
  const Bound bound("indent", arguments, {"width", "first", "blank"});
  Heap& heap = interpreter.heap();
  const Text& text = expect_text(value, "indent");
  TextBuilder margin(interpreter.budget());
  if (bound.get(0) != nullptr && bound[0].is_string()) {
    if (text.markup && !bound[0].text().markup) {
      append_escaped(margin, bound[0].text());
    } else {
      margin.append(bound[0].text());
    }
  } else {
    margin.repeat(" ", static_cast<uint64_t>(std::max<int64_t>(0, bound.integer(0, 4))));
  }
  const TextPtr indention = margin.finish();
  const bool first = bound.flag(1, false), blank = bound.flag(2, false);
  // As Python's splitlines of the text and one more newline.
  TextBuilder with_newline(interpreter.budget());
  with_newline.append(text);
  with_newline.append("\n");
  const std::vector<Value> lines = split_lines(heap, *with_newline.finish(), false);
  TextBuilder out(interpreter.budget());
  for (size_t i = 0; i < lines.size(); ++i) {
    const Text& line = lines[i].text();
    if (i > 0) out.append("\n");
    if (i == 0 ? first : blank || !line.bytes.empty()) out.append(*indention);
    out.append(line);
  }
  return out.finish(text.markup);
}

Value truncate(Interpreter& interpreter, const Value& value, CallArguments& arguments) {
  const Bound bound("truncate", arguments, {"length", "killwords", "end", "leeway"});
  Heap& heap = interpreter.heap();
  const Value end = bound.get(2) != nullptr ? bound[2] : heap.text("...");
  const int64_t length = bound.integer(0, 255),
                leeway = bound.some(3) != nullptr ? expect_integer(bound[3], "truncate") : 5;
  const int64_t end_length = jinja::length(end);
  if (length < end_length) value_error("truncate: expected length >= {}, got {}", end_length, length);
  if (leeway < 0) value_error("truncate: expected leeway >= 0, got {}", leeway);
  if (jinja::length(value) - leeway <= length) return value;
  const Text& text = expect_text(value, "truncate");
  Value kept = slice_text(heap, text, 0, length - end_length);
  if (!bound.flag(1, false)) {
    const Text space(" ");
    kept = split_right(heap, kept.text(), &space, 1)[0];
  }
  return binary(heap, BinaryOperator::add, kept, end);
}

// ---- wordwrap: Python's textwrap ----

struct Character {
  size_t begin, end;
  char32_t c;
};

bool in_word_or_punctuation(char32_t c) {
  return is_word(c) ||
         (c < 0x80 && std::string_view("!\"'&.,?").find(static_cast<char>(c)) != std::string_view::npos);
}

class Wrapper {
 public:
  Wrapper(Heap& heap, const Text& text, int64_t width, bool break_long_words, bool break_on_hyphens)
      : heap_(heap),
        text_(text),
        width_(width),
        break_long_words_(break_long_words),
        break_on_hyphens_(break_on_hyphens) {
    heap.budget().allocate(text.bytes.size() * sizeof(Character));
    for (size_t i = 0; i < text.bytes.size();) {
      const size_t begin = i;
      const char32_t c = next_code_point(text.bytes, i).value_or(0xFFFD);
      characters_.push_back({begin, i, c});
    }
  }

  std::vector<Value> run() {
    std::vector<Chunk> chunks = cut();
    std::reverse(chunks.begin(), chunks.end());
    std::vector<Value> lines;
    while (!chunks.empty()) {
      heap_.budget().step();
      if (!lines.empty() && is_blank(chunks.back())) chunks.pop_back();
      std::vector<Chunk> line;
      int64_t used = 0;
      while (!chunks.empty() && used + size(chunks.back()) <= width_) {
        used += size(chunks.back());
        line.push_back(chunks.back());
        chunks.pop_back();
      }
      if (!chunks.empty() && size(chunks.back()) > width_) place_long_word(chunks, line, used);
      if (!line.empty() && is_blank(line.back())) line.pop_back();
      if (line.empty()) continue;
      TextBuilder out(heap_.budget());
      for (const Chunk& chunk : line) out.append(text_, at(chunk.begin), at(chunk.end));
      lines.push_back(out.finish());
    }
    return lines;
  }

 private:
  struct Chunk {  // of characters
    size_t begin, end;
  };
  static int64_t size(const Chunk& chunk) { return static_cast<int64_t>(chunk.end - chunk.begin); }
  size_t at(size_t index) const {
    return index < characters_.size() ? characters_[index].begin : text_.bytes.size();
  }
  char32_t c(size_t index) const { return index < characters_.size() ? characters_[index].c : 0; }
  static bool is_blank_character(char32_t c) { return c == ' ' || (c >= 9 && c <= 13); }
  static bool is_letter_character(char32_t c) { return is_word(c) && !is_decimal(c) && c != '_'; }

  bool is_blank(const Chunk& chunk) const {
    for (size_t i = chunk.begin; i < chunk.end; ++i) {
      if (!is_space(c(i))) return false;
    }
    return true;
  }

  // Two or more hyphens that begin at `i` between a word and another: a dash. Their end, or `i`.
  size_t end_of_dash(size_t i) const {
    size_t end = i;
    while (c(end) == '-') ++end;
    if (end < i + 2 || i == 0 || !in_word_or_punctuation(c(i - 1)) || !is_word(c(end))) return i;
    return end;
  }

  // A word may break before `i`, right after a hyphen inside of it.
  bool breaks_at(size_t begin, size_t i) const {
    if (c(i - 1) != '-' || i < begin + 2) return false;
    const bool two_letters = i >= begin + 3 && is_letter_character(c(i - 2)) && is_letter_character(c(i - 3));
    const bool letter_hyphen_letter =
        i >= begin + 4 && is_letter_character(c(i - 2)) && c(i - 3) == '-' && is_letter_character(c(i - 4));
    if (!two_letters && !letter_hyphen_letter) return false;
    if (!is_letter_character(c(i))) return false;
    return is_letter_character(c(i + 1)) || (c(i + 1) == '-' && is_letter_character(c(i + 2)));
  }

  std::vector<Chunk> cut() const {
    std::vector<Chunk> chunks;
    for (size_t i = 0; i < characters_.size();) {
      const size_t begin = i;
      if (is_blank_character(c(i))) {
        while (i < characters_.size() && is_blank_character(c(i))) ++i;
      } else if (const size_t dash = break_on_hyphens_ ? end_of_dash(i) : i; dash > i) {
        i = dash;
      } else {
        ++i;
        while (i < characters_.size() && !is_blank_character(c(i))) {
          if (break_on_hyphens_ && (breaks_at(begin, i) || end_of_dash(i) > i)) break;
          ++i;
        }
      }
      chunks.push_back({begin, i});
    }
    return chunks;
  }

  void place_long_word(std::vector<Chunk>& chunks, std::vector<Chunk>& line, int64_t used) const {
    if (!break_long_words_) {
      if (!line.empty()) return;
      line.push_back(chunks.back());
      chunks.pop_back();
      return;
    }
    Chunk& word = chunks.back();
    auto end = word.begin + static_cast<size_t>(std::max<int64_t>(width_ - used, 1));
    if (break_on_hyphens_ && size(word) > width_ - used) {
      // At the last hyphen that fits, unless only hyphens are before it.
      for (size_t i = end; i > word.begin + 1; --i) {
        if (c(i - 1) != '-') continue;
        bool other = false;
        for (size_t j = word.begin; j + 1 < i; ++j) other = other || c(j) != '-';
        if (other) end = i;
        break;
      }
    }
    line.push_back({word.begin, end});
    word.begin = end;
    if (word.begin == word.end) chunks.pop_back();
  }

  Heap& heap_;
  const Text& text_;
  int64_t width_;
  bool break_long_words_, break_on_hyphens_;
  std::vector<Character> characters_;
};

Value wordwrap(Interpreter& interpreter, const Value& value, CallArguments& arguments) {
  const Bound bound("wordwrap", arguments, {"width", "break_long_words", "wrapstring", "break_on_hyphens"});
  Heap& heap = interpreter.heap();
  const int64_t width = bound.integer(0, 79);
  const Text newline("\n");
  const Text& separator = bound.some(2) != nullptr ? expect_text(bound[2], "wordwrap") : newline;
  TextBuilder out(interpreter.budget());
  bool first_line = true;
  for (const Value& line : split_lines(heap, expect_text(value, "wordwrap"), false)) {
    if (width <= 0) value_error("invalid width {} (must be > 0)", width);
    if (!first_line) out.append(separator);
    first_line = false;
    bool first = true;
    for (const Value& wrapped :
         Wrapper(heap, line.text(), width, bound.flag(1, true), bound.flag(3, true)).run()) {
      if (!first) out.append(separator);
      first = false;
      out.append(wrapped.text());
    }
  }
  return out.finish();
}

constexpr Named<Filter> kFilters[] = {{"indent", indent}, {"truncate", truncate}, {"wordwrap", wordwrap}};

}  // namespace

std::span<const Named<Filter>> wrapping_filters() {
  return kFilters;
}

}  // namespace qkv::jinja
