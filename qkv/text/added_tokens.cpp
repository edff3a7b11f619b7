// A scan for first bytes, then the candidates of that byte from the longest down.
#include "qkv/text/added_tokens.h"

#include <algorithm>

#include "qkv/text/unicode.h"

namespace qkv {
namespace {

bool ends_with_word(std::string_view text) {
  if (text.empty()) return false;
  size_t position = previous_code_point(text, text.size());
  const auto c = next_code_point(text, position);
  return c && is_word_character(*c);
}

bool starts_with_word(std::string_view text) {
  if (text.empty()) return false;
  size_t position = 0;
  const auto c = next_code_point(text, position);
  return c && is_word_character(*c);
}

size_t begin_of_trailing_space(std::string_view text) {
  size_t end = text.size();
  while (end > 0) {
    const size_t begin = previous_code_point(text, end);
    size_t position = begin;
    const auto c = next_code_point(text, position);
    if (!c || !is_unicode_space(*c)) break;
    end = begin;
  }
  return end;
}

size_t end_of_leading_space(std::string_view text) {
  size_t end = 0;
  while (end < text.size()) {
    size_t position = end;
    const auto c = next_code_point(text, position);
    if (!c || !is_unicode_space(*c)) break;
    end = position;
  }
  return end;
}

}  // namespace

bool overlaps(std::span<const TextRange> ranges, size_t begin, size_t end) {
  const auto it = std::partition_point(ranges.begin(), ranges.end(),
                                       [&](const TextRange& range) { return range.end <= begin; });
  return it != ranges.end() && it->begin < end;
}

void AddedTokenMatcher::add(const AddedToken& token, std::string_view content) {
  if (content.empty()) return;
  entries_.push_back(token);
  entries_.back().content = content;
}

void AddedTokenMatcher::build() {
  by_first_byte_.assign(256, {});
  starts_.assign(256 * 256, false);
  for (uint32_t i = 0; i < entries_.size(); ++i) {
    const auto first = static_cast<uint8_t>(entries_[i].content[0]);
    by_first_byte_[first].push_back(i);
    for (int second = 0; second < 256; ++second) {
      const bool possible =
          entries_[i].content.size() == 1 || static_cast<uint8_t>(entries_[i].content[1]) == second;
      if (possible) starts_[first * 256 + second] = true;
    }
  }
  for (auto& list : by_first_byte_) {
    std::stable_sort(list.begin(), list.end(), [&](uint32_t a, uint32_t b) {
      return entries_[a].content.size() > entries_[b].content.size();
    });
  }
}

std::optional<AddedTokenMatcher::Found> AddedTokenMatcher::find(std::string_view text, size_t start,
                                                                const SpecialRule& rule) const {
  for (size_t i = start; i < text.size(); ++i) {
    const auto first = static_cast<uint8_t>(text[i]);
    const auto second = i + 1 < text.size() ? static_cast<uint8_t>(text[i + 1]) : uint8_t{0};
    if (i + 1 < text.size() && !starts_[first * 256 + second]) continue;
    for (const uint32_t index : by_first_byte_[first]) {
      const AddedToken& token = entries_[index];
      if (token.special && !rule.parse) continue;
      if (text.compare(i, token.content.size(), token.content) != 0) continue;
      const size_t end = i + token.content.size();
      if (token.special && overlaps(rule.plain, i, end)) continue;
      return Found{i, end, &token};
    }
  }
  return std::nullopt;
}

void AddedTokenMatcher::split(std::string_view text, const SpecialRule& rule,
                              FunctionRef<void(std::string_view, std::optional<int32_t>)> visit) const {
  size_t done = 0;
  if (!entries_.empty()) {
    size_t from = 0;
    while (const auto found = find(text, from, rule)) {
      from = found->end;
      const AddedToken& token = *found->token;
      if (token.single_word &&
          (ends_with_word(text.substr(0, found->begin)) || starts_with_word(text.substr(found->end)))) {
        continue;
      }
      size_t begin = found->begin;
      if (token.lstrip) begin = std::max(done, begin_of_trailing_space(text.substr(0, begin)));
      if (token.rstrip) from += end_of_leading_space(text.substr(from));
      if (done < begin) visit(text.substr(done, begin - done), std::nullopt);
      visit(text.substr(begin, from - begin), token.id);
      done = from;
    }
  }
  if (done < text.size()) visit(text.substr(done), std::nullopt);
}

}  // namespace qkv
