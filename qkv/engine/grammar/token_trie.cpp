#include "qkv/engine/grammar/token_trie.h"

#include <algorithm>

#include "qkv/core/error.h"

namespace qkv {
namespace {

// Far above any vocabulary's longest token.
constexpr size_t kLongest = UINT16_MAX;

std::vector<std::string_view> plain_tokens(const Tokenizer& tokenizer) {
  std::vector<std::string_view> tokens(static_cast<size_t>(tokenizer.vocab_size()));
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    if (!tokenizer.is_special(id)) tokens[static_cast<size_t>(id)] = tokenizer.token_bytes(id);
  }
  return tokens;
}

}  // namespace

TokenTrie::TokenTrie(const Tokenizer& tokenizer) : TokenTrie(plain_tokens(tokenizer)) {}

TokenTrie::TokenTrie(std::vector<std::string_view> tokens) {
  begins_.push_back(0);
  for (size_t id = 0; id < tokens.size(); ++id) {
    const std::string_view token = tokens[id];
    require(token.size() <= kLongest, "[grammar] token {}: expected at most {} bytes, found {}", id, kLongest,
            token.size());
    if (!token.empty()) sorted_.push_back(static_cast<int32_t>(id));
    text_.insert(text_.end(), token.begin(), token.end());
    begins_.push_back(text_.size());
    depth_ = std::max(depth_, token.size());
  }
  std::sort(sorted_.begin(), sorted_.end(), [&](int32_t a, int32_t b) {
    const int order = bytes(a).compare(bytes(b));
    return order != 0 ? order < 0 : a < b;
  });
  build();
}

void TokenTrie::build() {
  nodes_.push_back({0, 0, 0, 0});
  std::vector<uint32_t> path = {0};  // the nodes of the token before
  std::string_view before;
  const auto close = [&](size_t depth) {  // what is deeper than `depth` ends here
    for (; path.size() > depth + 1; path.pop_back())
      nodes_[path.back()].end = static_cast<uint32_t>(nodes_.size());
  };
  for (uint32_t place = 0; place < sorted_.size(); ++place) {
    const std::string_view token = bytes(sorted_[place]);
    const auto common = static_cast<size_t>(
        std::mismatch(token.begin(), token.end(), before.begin(), before.end()).first - token.begin());
    close(common);
    for (size_t depth = common; depth < token.size(); ++depth) {
      path.push_back(static_cast<uint32_t>(nodes_.size()));
      nodes_.push_back({0, place, static_cast<uint16_t>(depth + 1), static_cast<uint8_t>(token[depth])});
    }
    before = token;
  }
  close(0);
  nodes_[0].end = static_cast<uint32_t>(nodes_.size());
  nodes_.push_back({0, static_cast<uint32_t>(sorted_.size()), 0, 0});
  nodes_.shrink_to_fit();
}

uint32_t TokenTrie::child_of_root(uint8_t byte) const {
  for (uint32_t node = 1; node < nodes_[0].end; node = nodes_[node].end) {
    if (nodes_[node].byte == byte) return node;
  }
  return 0;
}

std::string_view TokenTrie::bytes(int32_t id) const {
  if (id < 0 || static_cast<size_t>(id) >= vocabulary()) return {};
  const size_t begin = begins_[static_cast<size_t>(id)];
  return {text_.data() + begin, begins_[static_cast<size_t>(id) + 1] - begin};
}

}  // namespace qkv
