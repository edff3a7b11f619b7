// What string methods and text filters share. Results keep the marks of the characters that they keep.
#pragma once

#include "qkv/text/jinja/value.h"

namespace qkv::jinja {

Value to_upper(Heap& heap, const Text& text);
Value to_lower(Heap& heap, const Text& text);
Value to_title(Heap& heap, const Text& text);
Value to_capitalized(Heap& heap, const Text& text);
Value swap_case(Heap& heap, const Text& text);
Value fold_case(Heap& heap, const Text& text);

// `set`: the characters to strip, white space if null.
Value strip(Heap& heap, const Text& text, const Value* set, bool left, bool right);
// At most `count` times if it is not negative. `markup`: what the result is.
Value replace_text(Heap& heap, const Text& text, const Text& from, const Text& to, int64_t count,
                   bool markup);
enum class Alignment { left, right, center };
// To `width` characters with `fill`, which is one character.
Value pad(Heap& heap, const Text& text, int64_t width, std::string_view fill, Alignment alignment);

// At white space runs if `separator` is null. Negative limit: everywhere.
std::vector<Value> split(Heap& heap, const Text& text, const Text* separator, int64_t limit);
std::vector<Value> split_right(Heap& heap, const Text& text, const Text* separator, int64_t limit);
std::vector<Value> split_lines(Heap& heap, const Text& text, bool keep_ends);
// Items that are no strings are an error unless `convert`.
Value join(Heap& heap, const Text& separator, const Value& items, bool convert);

}  // namespace qkv::jinja
