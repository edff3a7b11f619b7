// A vocabulary of whole words: what is not in it is unknown.
#pragma once

#include <optional>

#include "qkv/text/word_model.h"

namespace qkv {

class WordLevelModel : public WordModel {
 public:
  // `where` names the source in errors.
  WordLevelModel(const Vocabulary& words, std::optional<int32_t> unk, std::string where)
      : words_(words), unk_(unk), where_(std::move(where)) {}
  // Throws Error if the word is unknown and the vocabulary has no token for that.
  void encode_word(std::string_view word, WordScratch& scratch, std::vector<int32_t>& ids) const override;
  std::string_view kind() const override { return "wordlevel"; }

 private:
  Vocabulary words_;
  std::optional<int32_t> unk_;
  std::string where_;
};

}  // namespace qkv
