// A SentencePiece model as the tokenizer.json that Hugging Face's converters make of it.
#pragma once

#include "qkv/text/pipeline_tokenizer.h"
#include "qkv/text/sentencepiece_tokenizer.h"

namespace qkv {

// BPE with the merges that the scores imply, or Unigram. Throws Error for what has an obstacle.
TokenizerParts sentencepiece_parts(const SentencePieceTokenizer& tokenizer);
// What keeps the model from becoming a tokenizer.json, in words.
std::optional<std::string> tokenizer_json_obstacle(const SentencePieceProto& proto);

// The tokens that are cut out of a text: control and unknown pieces, user-defined ones and what the
// configuration adds, by id.
std::vector<AddedToken> all_added_tokens(const SentencePieceTokenizer& tokenizer);

// A SentencePiece model that gives the ids of a tokenizer.json with "▁" for spaces.
struct SentencePieceForm {
  SentencePieceProto proto;
  bool prefix_every_part = true;
  std::vector<std::string> differences;  // what it does not do, in words
};
// For Unigram, and for BPE whose merges are all the ways to cut each token in two (those that were made from
// SentencePiece models). Throws Error naming why there is none.
SentencePieceForm sentencepiece_form(const TokenizerParts& parts);

}  // namespace qkv
