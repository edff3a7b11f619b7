// How documents draw their parts: one random stream per (purpose, split, index), and draws that are repeated
// until the fact's key hashes to the wanted split.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "qkv/core/rng.h"
#include "qkv/data/tales.h"

namespace qkv::tales {

// One number per independent use of randomness; changing one changes that part of the corpus only.
enum class Purpose : uint64_t {
  kind = 1,
  story,
  question,
  arithmetic,
  instruction,
  fact,
  asked_question,
  asked_instruction,
  preference,
  world,
  style,
  asked_arithmetic,
};

struct Draw {
  Draw(uint64_t seed, Purpose purpose, Split split_, uint64_t index)
      : rng(Rng(seed)
                .split(static_cast<uint64_t>(purpose))
                .split(static_cast<uint64_t>(split_))
                .split(index)),
        split(split_) {}

  Rng rng;
  Split split;
  std::vector<std::string> keys;

  bool wanted(std::string_view key) const { return held_out(key) == (split == Split::held_out); }

  // Draws with `make` until `key_of(value)` belongs to the split, and keeps the key.
  template <typename Make, typename KeyOf>
  auto until_wanted(Make&& make, KeyOf&& key_of) {
    for (;;) {
      auto value = make();
      std::string key = key_of(value);
      if (!wanted(key)) continue;
      keys.push_back(std::move(key));
      return value;
    }
  }
};

// "has|Mia|red kite".
template <typename... Parts>
std::string make_key(std::string_view relation, const Parts&... parts) {
  std::string key(relation);
  ((key += '|', key += parts), ...);
  return key;
}

}  // namespace qkv::tales
