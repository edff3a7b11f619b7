// The five behaviours as folds over the parts.
#include "qkv/text/split_behavior.h"

#include <algorithm>

#include "qkv/core/error.h"

namespace qkv {
namespace {

// A match that does not follow a match joins the part before it (in the order of iteration).
template <typename Iterator, typename Join>
std::vector<TextRange> merge_into_earlier(Iterator begin, Iterator end, Join&& join) {
  std::vector<TextRange> kept;
  bool previous_match = false;
  for (auto part = begin; part != end; ++part) {
    if (part->is_match && !previous_match && !kept.empty()) {
      join(kept.back(), part->range);
    } else {
      kept.push_back(part->range);
    }
    previous_match = part->is_match;
  }
  return kept;
}

}  // namespace

SplitBehavior parse_split_behavior(std::string_view name, std::string_view where) {
  if (name == "Isolated") return SplitBehavior::isolated;
  if (name == "Removed") return SplitBehavior::removed;
  if (name == "MergedWithPrevious") return SplitBehavior::merged_with_previous;
  if (name == "MergedWithNext") return SplitBehavior::merged_with_next;
  if (name == "Contiguous") return SplitBehavior::contiguous;
  fail(
      "{}: behavior: expected Isolated, Removed, MergedWithPrevious, MergedWithNext or Contiguous, found "
      "'{}'",
      where, name);
}

std::vector<TextRange> apply_split_behavior(const std::vector<SplitPart>& parts, SplitBehavior behavior) {
  std::vector<TextRange> kept;
  switch (behavior) {
    case SplitBehavior::isolated:
    case SplitBehavior::removed:
      for (const auto& part : parts) {
        if (behavior == SplitBehavior::isolated || !part.is_match) kept.push_back(part.range);
      }
      break;
    case SplitBehavior::contiguous: {
      bool previous_match = false;
      for (const auto& part : parts) {
        if (!kept.empty() && part.is_match == previous_match) {
          kept.back().end = part.range.end;
        } else {
          kept.push_back(part.range);
        }
        previous_match = part.is_match;
      }
      break;
    }
    case SplitBehavior::merged_with_previous:
      kept = merge_into_earlier(parts.begin(), parts.end(),
                                [](TextRange& earlier, const TextRange& match) { earlier.end = match.end; });
      break;
    case SplitBehavior::merged_with_next:
      kept = merge_into_earlier(parts.rbegin(), parts.rend(),
                                [](TextRange& later, const TextRange& match) { later.begin = match.begin; });
      std::reverse(kept.begin(), kept.end());
      break;
  }
  std::erase_if(kept, [](const TextRange& range) { return range.begin == range.end; });
  return kept;
}

}  // namespace qkv
