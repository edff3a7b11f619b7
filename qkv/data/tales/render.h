// Sentence templates. In a template
//   [a|b|c]   is one of its alternatives, drawn at random; they nest and may be empty,
//   {key}     is a bound value, {Key} the same with a capital letter,
//   {a key}   has the right indefinite article before it, {A key} a capital one.
// Values are inserted as they are (never read as templates).
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "qkv/core/rng.h"

namespace qkv::tales {

class Bindings {
 public:
  // Replaces an earlier value of the key. Keys are string literals that start with a small letter.
  Bindings& set(std::string_view key, std::string_view value);
  // Throws Error on an unbound key.
  const std::string& get(std::string_view key) const;

 private:
  std::vector<std::pair<std::string_view, std::string>> values_;
};

// Appends the expanded template. Throws Error on an unbound key or an unclosed bracket.
void render(std::string_view text, const Bindings& bindings, Rng& rng, std::string& out);
std::string render(std::string_view text, const Bindings& bindings, Rng& rng);

// "an apple", "a unicorn".
std::string with_article(std::string_view noun);
std::string capitalized(std::string_view text);
// "a", "a and b", "a, b and c".
std::string enumerated(const std::vector<std::string>& items);
std::vector<std::string> split_words(std::string_view text);

template <typename T>
const T& pick(const std::vector<T>& items, Rng& rng) {
  return items[rng.below(items.size())];
}
inline bool chance(Rng& rng, uint32_t percent) {
  return rng.below(100) < percent;
}
// Uniform in [low, high].
inline int between(Rng& rng, int low, int high) {
  return low + static_cast<int>(rng.below(static_cast<uint64_t>(high - low + 1)));
}

}  // namespace qkv::tales
