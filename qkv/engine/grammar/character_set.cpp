#include "qkv/engine/grammar/character_set.h"

#include <algorithm>

namespace qkv {
namespace {

constexpr char32_t kLast = 0x10FFFF;
constexpr CharacterRange kSurrogates = {0xD800, 0xDFFF};

}  // namespace

CharacterSet::CharacterSet(std::vector<CharacterRange> ranges) {
  std::vector<CharacterRange> parts;
  for (const auto& [first, last] : ranges) {
    if (first < kSurrogates.first) parts.push_back({first, std::min<char32_t>(last, kSurrogates.first - 1)});
    if (last > kSurrogates.last)
      parts.push_back({std::max<char32_t>(first, kSurrogates.last + 1), std::min(last, kLast)});
  }
  std::erase_if(parts, [](const CharacterRange& range) { return range.first > range.last; });
  std::sort(parts.begin(), parts.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  for (const CharacterRange& range : parts) {
    if (!ranges_.empty() && range.first <= ranges_.back().last + 1) {
      ranges_.back().last = std::max(ranges_.back().last, range.last);
    } else {
      ranges_.push_back(range);
    }
  }
}

CharacterSet CharacterSet::of(std::string_view ascii) {
  std::vector<CharacterRange> ranges;
  for (const char character : ascii) {
    const auto code = static_cast<char32_t>(static_cast<uint8_t>(character));
    ranges.push_back({code, code});
  }
  return CharacterSet(std::move(ranges));
}

CharacterSet CharacterSet::all() {
  return CharacterSet({{0, kLast}});
}

CharacterSet CharacterSet::complement() const {
  std::vector<CharacterRange> gaps;
  char32_t next = 0;
  for (const auto& [first, last] : ranges_) {
    if (first > next) gaps.push_back({next, first - 1});
    next = last + 1;
  }
  if (next <= kLast) gaps.push_back({next, kLast});
  return CharacterSet(std::move(gaps));
}

CharacterSet CharacterSet::operator|(const CharacterSet& other) const {
  std::vector<CharacterRange> together = ranges_;
  together.insert(together.end(), other.ranges_.begin(), other.ranges_.end());
  return CharacterSet(std::move(together));
}

CharacterSet CharacterSet::operator&(const CharacterSet& other) const {
  std::vector<CharacterRange> common;
  for (size_t i = 0, j = 0; i < ranges_.size() && j < other.ranges_.size();) {
    const CharacterRange &a = ranges_[i], &b = other.ranges_[j];
    const CharacterRange both = {std::max(a.first, b.first), std::min(a.last, b.last)};
    if (both.first <= both.last) common.push_back(both);
    (a.last < b.last ? i : j) += 1;
  }
  return CharacterSet(std::move(common));
}

bool CharacterSet::contains(char32_t character) const {
  const auto after = std::upper_bound(ranges_.begin(), ranges_.end(), character,
                                      [](char32_t value, const auto& range) { return value < range.first; });
  return after != ranges_.begin() && character <= std::prev(after)->last;
}

}  // namespace qkv
