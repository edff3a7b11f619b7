// What is known of the beginnings of texts: states of token sequences in a radix tree, so that a request
// which begins like an earlier one computes only what follows (RadixAttention: Zheng et al., arXiv
// 2312.07104). States share their pages: what two sequences have in common is in memory once.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "qkv/nn/state.h"

namespace qkv {

class PrefixTree {
 public:
  PrefixTree();
  ~PrefixTree();
  PrefixTree(const PrefixTree&) = delete;
  PrefixTree& operator=(const PrefixTree&) = delete;

  // A state of the longest beginning of `tokens` that is known, of at most `limit` of them. A state that
  // cannot be shortened (of a recurrent model, or of a window that has moved on) serves only as a whole.
  std::optional<SequenceState> find(std::span<const int32_t> tokens, int64_t limit);
  // How long it would be.
  int64_t match(std::span<const int32_t> tokens, int64_t limit) const;
  // Keeps `state`, which holds exactly these tokens. What it can stand in for is dropped.
  void insert(std::span<const int32_t> tokens, SequenceState state);
  // Forgets the state that was not used for longest. False if there is none.
  bool drop_oldest();

  int64_t size() const { return size_; }  // states
  // Of all states, where pages that several of them share count every time.
  uint64_t bytes() const;
  // All states, in no order.
  std::vector<const SequenceState*> states() const;

 private:
  struct Node;
  struct Place;
  Place locate(std::span<const int32_t> tokens) const;
  // The state to go on from, and how many of its tokens: 0 if there is none.
  std::pair<Node*, int64_t> source(std::span<const int32_t> tokens, int64_t limit) const;
  void forget(Node& node);

  std::unique_ptr<Node> root_;
  int64_t size_ = 0;
  uint64_t clock_ = 0;
};

// How many tokens both begin with.
int64_t common_prefix(std::span<const int32_t> a, std::span<const int32_t> b);

}  // namespace qkv
