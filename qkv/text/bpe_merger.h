// The merging half of BPE training: counts of adjacent pairs kept up to date under merges, the most frequent
// on top of a heap.
#pragma once

#include <cstdint>
#include <functional>
#include <queue>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "qkv/text/bpe_model.h"
#include "qkv/text/word_counts.h"

namespace qkv {

class BpeMerger {
 public:
  // Tokens 0 to 255 are the bytes in byte_order(). Words of at most 2^32 bytes together.
  BpeMerger(std::span<const WordCount> words, int64_t min_frequency, int32_t max_token_length);

  // Merges the most frequent pair. False if none is frequent enough. Usually adds one token; none if the
  // merged bytes already are a token.
  bool merge_once();

  const std::vector<std::string>& tokens() const { return tokens_; }  // raw bytes, by id
  const std::vector<BpeMerge>& merges() const { return merges_; }

 private:
  struct Pair {
    int32_t left, right;
    int64_t count = 0;
    bool merged = false;
    std::vector<uint32_t> words;  // where it occurs, possibly no longer
  };
  struct Word {
    uint64_t begin;
    uint32_t size;
    int64_t count;
  };
  struct Candidate {
    int64_t count;
    int32_t left, right;
    uint32_t pair;
    // Lowest priority first: fewer occurrences, then higher ids.
    bool operator<(const Candidate& other) const {
      if (count != other.count) return count < other.count;
      if (left != other.left) return left > other.left;
      return right > other.right;
    }
  };

  uint32_t pair_index(int32_t left, int32_t right);
  void increase(int32_t left, int32_t right, uint32_t word);
  void decrease(int32_t left, int32_t right, uint32_t word);
  void merge_in_word(uint32_t word, int32_t left, int32_t right, int32_t result);

  int64_t min_frequency_;
  size_t max_token_length_;
  std::vector<std::string> tokens_;
  std::unordered_map<std::string, int32_t> token_ids_;
  std::vector<BpeMerge> merges_;
  std::vector<int32_t> symbols_;
  std::vector<Word> words_;
  std::vector<Pair> pairs_;
  std::unordered_map<uint64_t, uint32_t> pair_ids_;
  std::vector<uint32_t> increased_;  // pairs whose count grew during the current merge
  std::priority_queue<Candidate> heap_;
};

}  // namespace qkv
