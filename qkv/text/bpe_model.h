// Byte-pair encoding of one word (Sennrich et al. 2016): of all adjacent pairs the one that was learned first
// is merged, again and again.
#pragma once

#include <array>
#include <optional>

#include "qkv/text/word_model.h"

namespace qkv {

struct BpeMerge {
  int32_t left = 0;
  int32_t right = 0;
  int32_t result = 0;
  uint32_t rank = 0;  // lower merges first; equal ranks merge from the left
};

struct BpeOptions {
  bool byte_level = false;     // words are bytes; otherwise characters
  bool byte_fallback = false;  // unknown characters become "<0xE2>" tokens
  bool ignore_merges = false;  // a word that is itself a token is that token
  bool fuse_unk = false;       // neighbouring unknown characters become one unknown token
  std::string continuing_subword_prefix;
  std::string end_of_word_suffix;
  std::optional<int32_t> unk;
};

// (left, right) -> what they merge into; open addressing, one probe sequence per lookup.
class PairTable {
 public:
  struct Value {
    uint32_t rank;
    int32_t result;
  };
  // Keeps the lowest rank of a pair that is listed twice.
  void build(const std::vector<BpeMerge>& merges);
  const Value* find(int32_t left, int32_t right) const {
    if (slots_.empty()) return nullptr;
    const uint64_t key = key_of(left, right);
    for (size_t i = hash(key) & mask_;; i = (i + 1) & mask_) {
      if (slots_[i].key == key) return &slots_[i].value;
      if (slots_[i].key == kEmpty) return nullptr;
    }
  }

 private:
  static constexpr uint64_t kEmpty = ~uint64_t{0};
  struct Slot {
    uint64_t key = kEmpty;
    Value value{};
  };
  static uint64_t key_of(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  static size_t hash(uint64_t key) {
    key *= 0x9E3779B97F4A7C15ull;
    return key ^ (key >> 29);
  }
  std::vector<Slot> slots_;
  size_t mask_ = 0;
};

class BpeModel : public WordModel {
 public:
  // `words`: what a piece of text must read to be a token, that is raw bytes if byte_level, spellings
  // otherwise.
  BpeModel(const Vocabulary& words, const std::vector<BpeMerge>& merges, BpeOptions options);
  void encode_word(std::string_view word, WordScratch& scratch, std::vector<int32_t>& ids) const override;
  std::string_view kind() const override { return options_.byte_level ? "byte-bpe" : "bpe"; }

 private:
  void initial_symbols(std::string_view word, WordScratch& scratch) const;
  void merge_by_scan(WordScratch& scratch) const;
  void merge_by_heap(WordScratch& scratch) const;

  BpeOptions options_;
  Vocabulary words_;
  PairTable pairs_;
  std::array<int32_t, 256> byte_ids_;      // byte level: the token of each byte, -1 if there is none
  std::array<int32_t, 256> fallback_ids_;  // "<0x00>" ... "<0xFF>"
};

}  // namespace qkv
