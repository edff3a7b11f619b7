// A vocabulary as a tree of bytes, so that tokens which begin alike are tried together. Built once for a
// tokenizer and shared by everything that is generated with it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "qkv/text/tokenizer.h"

namespace qkv {

class TokenTrie {
 public:
  // Nodes are in depth-first order, children by byte: those below a node follow it up to `end`. Node 0 is the
  // root.
  struct Node {
    uint32_t end;
    uint32_t first_token;  // its tokens are tokens()[first_token .. first_token of the next node)
    uint16_t depth;        // bytes up to here
    uint8_t byte;          // the last of them
  };

  // Control tokens and tokens without bytes are left out: no text has them.
  explicit TokenTrie(const Tokenizer& tokenizer);
  // Ids are positions; an empty one is left out.
  explicit TokenTrie(std::vector<std::string_view> tokens);

  std::span<const Node> nodes() const { return {nodes_.data(), nodes_.size() - 1}; }
  // Ids that end at the node: more than one if the vocabulary spells the same bytes twice.
  std::span<const int32_t> tokens_at(uint32_t node) const {
    return {sorted_.data() + nodes_[node].first_token, sorted_.data() + nodes_[node + 1].first_token};
  }
  // The child of the root for a byte; 0 if no token begins with it.
  uint32_t child_of_root(uint8_t byte) const;
  size_t depth() const { return depth_; }                   // bytes of the longest token
  size_t vocabulary() const { return begins_.size() - 1; }  // one more than the largest id
  // Empty for what was left out and for ids outside the vocabulary.
  std::string_view bytes(int32_t id) const;

 private:
  void build();

  std::vector<char> text_;       // all tokens, one after the other
  std::vector<size_t> begins_;   // by id
  std::vector<int32_t> sorted_;  // ids by their bytes
  std::vector<Node> nodes_;      // and one behind the last
  size_t depth_ = 0;
};

}  // namespace qkv
