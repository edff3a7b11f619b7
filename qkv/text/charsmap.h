// SentencePiece's compiled normalization rules (`precompiled_charsmap`): a double-array trie (Aoe 1989, in
// the packing of Darts-clone) from sequences of characters to what replaces them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace qkv {

class Charsmap {
 public:
  // No rules.
  Charsmap() = default;
  // `blob`: the size of the trie in bytes (u32, little endian), the trie, the replacements, each ended by a
  // zero byte. Throws Error `<where>: ...` if it is damaged: afterwards every walk through it, also that of a
  // library that checks nothing, stays inside.
  Charsmap(std::string_view blob, const std::string& where);

  // The replacement of the shortest beginning of `text` that has one: what Hugging Face's Precompiled looks
  // up.
  std::optional<std::string_view> shortest(std::string_view text) const;
  // `text` (valid UTF-8) as Hugging Face's Precompiled rewrites it: whole clusters of less than six bytes, or
  // else single characters, are looked up.
  std::string rewrite(std::string_view text) const;

 private:
  void check_trie(const std::string& where) const;

  std::vector<uint32_t> units_;
  std::string replacements_;
};

}  // namespace qkv
