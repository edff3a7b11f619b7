// Unigram language model (Kudo 2018): of all ways to cut a text into tokens the one with the highest sum of
// scores, as Hugging Face's tokenizers computes it.
#pragma once

#include <array>
#include <optional>

#include "qkv/text/word_model.h"

namespace qkv {

// Byte strings -> numbers, for finding every token that a text begins with in one walk.
class ByteTrie {
 public:
  static constexpr int32_t kRoot = 0;
  static constexpr int32_t kNone = -1;

  // Room for strings of `bytes` bytes in all.
  void reserve(size_t bytes);
  // Replaces the value of a string that is there.
  void insert(std::string_view text, int32_t value);
  // The node that `byte` leads to, or kNone.
  int32_t child(int32_t node, uint8_t byte) const;
  // The value of the string that ends at the node, or kNone.
  int32_t value(int32_t node) const { return values_[node]; }

 private:
  struct Slot {
    uint64_t key = 0;  // node and byte; 0 is free, since nothing leads to the root
    int32_t node = 0;
  };
  static uint64_t key_of(int32_t node, uint8_t byte) {
    return (static_cast<uint64_t>(static_cast<uint32_t>(node)) << 8 | byte) + 1;
  }
  size_t slot_of(uint64_t key) const;
  void grow();

  std::vector<int32_t> values_{kNone};
  std::vector<Slot> slots_{16};
  size_t used_ = 0;
};

struct UnigramOptions {
  std::vector<double> scores;  // by place in the vocabulary
  std::optional<int32_t> unk;
  bool byte_fallback = false;  // unknown characters become "<0xE2>" tokens
};

class UnigramModel : public WordModel {
 public:
  struct Token {
    std::string_view text;
    int32_t id;
    double score;
  };
  // `tokens`: what a text may be cut into; the spelling of a byte ("<0x41>") is no such thing in
  // SentencePiece. `lowest_score` is that of the whole vocabulary; an unknown character scores ten below it.
  // `byte_ids`: the tokens of unknown bytes, -1 for those without. `where` names the source in errors.
  UnigramModel(const std::vector<Token>& tokens, double lowest_score, std::optional<int32_t> unk,
               const std::array<int32_t, 256>& byte_ids, std::string where);
  // Throws Error if a character is unknown and the vocabulary has no token for that.
  void encode_word(std::string_view word, WordScratch& scratch, std::vector<int32_t>& ids) const override;
  std::string_view kind() const override { return "unigram"; }

 private:
  void append_unknown(std::string_view text, std::vector<int32_t>& ids) const;

  ByteTrie trie_;  // to indices of ids_ and scores_
  std::vector<int32_t> ids_;
  std::vector<double> scores_;
  double unknown_score_;
  std::optional<int32_t> unk_;
  std::array<int32_t, 256> byte_ids_;
  std::string where_;
};

}  // namespace qkv
