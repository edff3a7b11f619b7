// WordPiece as BERT uses it (Schuster and Nakajima 2012; Devlin et al. 2018): the longest token first, then
// the longest continuation ("##ing"); a word that cannot be covered is unknown as a whole.
#pragma once

#include "qkv/text/word_model.h"

namespace qkv {

struct WordPieceOptions {
  int32_t unk = 0;
  std::string continuing_subword_prefix = "##";
  int64_t max_input_chars_per_word = 100;
};

class WordPieceModel : public WordModel {
 public:
  WordPieceModel(const Vocabulary& words, WordPieceOptions options);
  void encode_word(std::string_view word, WordScratch& scratch, std::vector<int32_t>& ids) const override;
  std::string_view kind() const override { return "wordpiece"; }

 private:
  Vocabulary words_;
  WordPieceOptions options_;
  size_t longest_ = 0;  // bytes of the longest token
};

}  // namespace qkv
