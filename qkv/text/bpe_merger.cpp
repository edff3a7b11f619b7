// Each merge touches only the words that hold the pair; heap entries go stale and are renewed when they
// surface.
#include "qkv/text/bpe_merger.h"

#include <algorithm>
#include <limits>

#include "qkv/core/error.h"
#include "qkv/text/byte_alphabet.h"

namespace qkv {

BpeMerger::BpeMerger(std::span<const WordCount> words, int64_t min_frequency, int32_t max_token_length)
    : min_frequency_(min_frequency),
      max_token_length_(max_token_length > 0 ? static_cast<size_t>(max_token_length)
                                             : std::numeric_limits<size_t>::max()) {
  std::array<int32_t, 256> id_of_byte{};
  for (int32_t id = 0; id < 256; ++id) {
    const uint8_t byte = byte_order()[id];
    id_of_byte[byte] = id;
    tokens_.emplace_back(1, static_cast<char>(byte));
    token_ids_.emplace(tokens_.back(), id);
  }
  require(words.size() < std::numeric_limits<uint32_t>::max(),
          "BPE training: expected at most {} distinct words, found {}",
          std::numeric_limits<uint32_t>::max() - 1, words.size());
  for (const auto& [word, count] : words) {
    if (word.size() < 2) continue;
    require(word.size() < std::numeric_limits<uint32_t>::max(),
            "BPE training: expected words below 4 GiB, found one of {} bytes", word.size());
    const auto index = static_cast<uint32_t>(words_.size());
    words_.push_back({symbols_.size(), static_cast<uint32_t>(word.size()), count});
    for (const char byte : word) symbols_.push_back(id_of_byte[static_cast<uint8_t>(byte)]);
    for (size_t i = words_.back().begin; i + 1 < symbols_.size(); ++i)
      increase(symbols_[i], symbols_[i + 1], index);
  }
  for (uint32_t i = 0; i < pairs_.size(); ++i)
    heap_.push({pairs_[i].count, pairs_[i].left, pairs_[i].right, i});
  increased_.clear();
}

uint32_t BpeMerger::pair_index(int32_t left, int32_t right) {
  const uint64_t key =
      static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  const auto [found, inserted] = pair_ids_.try_emplace(key, static_cast<uint32_t>(pairs_.size()));
  if (inserted) pairs_.push_back({left, right, 0, false, {}});
  return found->second;
}

void BpeMerger::increase(int32_t left, int32_t right, uint32_t word) {
  const uint32_t index = pair_index(left, right);
  Pair& pair = pairs_[index];
  pair.count += words_[word].count;
  if (pair.words.empty() || pair.words.back() != word) pair.words.push_back(word);
  increased_.push_back(index);
}

void BpeMerger::decrease(int32_t left, int32_t right, uint32_t word) {
  pairs_[pair_index(left, right)].count -= words_[word].count;
}

void BpeMerger::merge_in_word(uint32_t index, int32_t left, int32_t right, int32_t result) {
  Word& word = words_[index];
  int32_t* symbols = symbols_.data() + word.begin;
  uint32_t out = 0;
  for (uint32_t i = 0; i < word.size; ++i) {
    if (i + 1 == word.size || symbols[i] != left || symbols[i + 1] != right) {
      symbols[out++] = symbols[i];
      continue;
    }
    if (out > 0) {
      decrease(symbols[out - 1], left, index);
      increase(symbols[out - 1], result, index);
    }
    if (i + 2 < word.size) {
      decrease(right, symbols[i + 2], index);
      increase(result, symbols[i + 2], index);
    }
    symbols[out++] = result;
    ++i;
  }
  word.size = out;
}

bool BpeMerger::merge_once() {
  while (!heap_.empty()) {
    const Candidate top = heap_.top();
    heap_.pop();
    const int64_t count = pairs_[top.pair].count;
    if (count != top.count) {
      if (count >= min_frequency_ && count < top.count) heap_.push({count, top.left, top.right, top.pair});
      continue;
    }
    if (count < min_frequency_) continue;
    std::string bytes = tokens_[top.left] + tokens_[top.right];
    if (bytes.size() > max_token_length_) continue;

    const auto [known, inserted] = token_ids_.try_emplace(bytes, static_cast<int32_t>(tokens_.size()));
    const int32_t result = known->second;
    if (inserted) tokens_.push_back(std::move(bytes));
    if (!pairs_[top.pair].merged) {
      merges_.push_back({top.left, top.right, result, static_cast<uint32_t>(merges_.size())});
    }
    auto words = std::move(pairs_[top.pair].words);
    std::sort(words.begin(), words.end());
    words.erase(std::unique(words.begin(), words.end()), words.end());
    for (const uint32_t word : words) merge_in_word(word, top.left, top.right, result);
    Pair& merged = pairs_[top.pair];
    merged.count = 0;
    merged.merged = true;
    merged.words = {};

    std::sort(increased_.begin(), increased_.end());
    increased_.erase(std::unique(increased_.begin(), increased_.end()), increased_.end());
    for (const uint32_t index : increased_) {
      const Pair& pair = pairs_[index];
      if (pair.count >= min_frequency_) heap_.push({pair.count, pair.left, pair.right, index});
    }
    increased_.clear();
    return true;
  }
  return false;
}

}  // namespace qkv
