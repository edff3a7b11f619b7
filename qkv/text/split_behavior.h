// What becomes of the matches of a splitting pattern: the "behavior" of tokenizer.json.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "qkv/text/regex.h"

namespace qkv {

enum class SplitBehavior { isolated, removed, merged_with_previous, merged_with_next, contiguous };

// "Isolated", "Removed", ...; throws Error `<where>: ...` naming the known ones.
SplitBehavior parse_split_behavior(std::string_view name, std::string_view where);

// Part of a text: a match of the pattern, or what lies between matches. May be empty where a pattern matches
// nothing.
struct SplitPart {
  TextRange range;
  bool is_match = false;
};

// The ranges to keep, in order, without empty ones. `parts` cover the text.
std::vector<TextRange> apply_split_behavior(const std::vector<SplitPart>& parts, SplitBehavior behavior);

}  // namespace qkv
