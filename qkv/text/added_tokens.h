// Tokens that are cut out of a text before the vocabulary sees it: "<|endoftext|>", "[MASK]", runs of spaces.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "qkv/core/parallel.h"
#include "qkv/text/text_range.h"

namespace qkv {

struct AddedToken {
  bool operator==(const AddedToken&) const = default;

  int32_t id = 0;
  std::string content;
  bool special = false;      // a control token: dropped by decode(skip_special)
  bool single_word = false;  // only where no word character touches it
  bool lstrip = false;       // swallows white space before it
  bool rstrip = false;       // swallows white space after it
  bool normalized = false;   // found in the normalized text, not in the raw one
};

// Where special tokens are seen: everywhere but in `plain`, or nowhere.
struct SpecialRule {
  bool parse = true;
  std::span<const TextRange> plain = {};  // in ascending order
};
// Whether any of the ascending ranges has a byte in [begin, end).
bool overlaps(std::span<const TextRange> ranges, size_t begin, size_t end);

// Finds added tokens, leftmost and longest first.
class AddedTokenMatcher {
 public:
  // `content` is what to look for (a token's own, or its normalized form).
  void add(const AddedToken& token, std::string_view content);
  void build();
  bool empty() const { return entries_.empty(); }
  // Calls visit(part, id) over the whole of `text` in order; id is empty for the parts between tokens (never
  // empty parts).
  void split(std::string_view text, const SpecialRule& rule,
             FunctionRef<void(std::string_view part, std::optional<int32_t> id)> visit) const;

 private:
  struct Found {
    size_t begin = 0, end = 0;
    const AddedToken* token = nullptr;
  };
  std::optional<Found> find(std::string_view text, size_t start, const SpecialRule& rule) const;
  std::vector<AddedToken> entries_;  // content replaced by what to look for
  // Entries that begin with each byte, longest first.
  std::vector<std::vector<uint32_t>> by_first_byte_;
  // The pairs of bytes that begin any entry (all pairs of a one-byte entry), to skip quickly.
  std::vector<bool> starts_;
};

}  // namespace qkv
