// Vocabularies trained by SentencePiece (tokenizer.model), encoded by libsentencepiece.
#pragma once

#include <memory>
#include <mutex>
#include <string>

#include "qkv/text/added_tokens.h"
#include "qkv/text/scratch_pool.h"
#include "qkv/text/sentencepiece_proto.h"
#include "qkv/text/tokenizer.h"
#include "qkv/text/tokenizer_config.h"
#include "qkv/text/word_cache.h"

namespace sentencepiece {
class SentencePieceProcessor;
}

namespace qkv {

class SentencePieceTokenizer : public Tokenizer {
 public:
  // `model` is the file's contents. Throws Error `<where>: ...`.
  SentencePieceTokenizer(std::string model, const std::string& where, const TokenizerConfig& config);
  ~SentencePieceTokenizer() override;

  std::string_view kind() const override;
  std::string to_json() const override;
  bool has_json() const override;
  // What the file says: scores and types of the pieces, by id; ids of added tokens lie beyond.
  const SentencePieceProto& proto() const { return proto_; }
  // Tokens that the configuration adds to the pieces, or cuts out where a piece would be merged.
  const std::vector<AddedToken>& added_tokens() const { return added_; }
  // A dummy prefix after every token that is cut out, not only at the start ("legacy" in
  // tokenizer_config.json).
  bool prefixes_every_part() const { return prefix_every_part_; }

 protected:
  void encode_text(std::string_view text, const EncodeOptions& options,
                   std::vector<int32_t>& ids) const override;
  TokenizerFiles model_files() const override { return {{"tokenizer.model", model_}}; }
  std::string_view tokenizer_class() const override { return "LlamaTokenizer"; }

 private:
  struct Caches {
    WordCache prefixed, continuing;
  };
  void build_entries(const TokenizerConfig& config, const std::string& where);
  void set_special_ids(const TokenizerConfig& config);
  const sentencepiece::SentencePieceProcessor& continuing_processor() const;
  void encode_run(std::string_view run, bool at_start, Caches& caches, std::vector<int32_t>& ids) const;
  size_t word_end(std::string_view run) const;

  std::string model_;
  SentencePieceProto proto_;
  bool prefix_every_part_ = true;
  std::unique_ptr<sentencepiece::SentencePieceProcessor> processor_;
  // The same model without dummy prefix, for text that goes on; made when first needed.
  mutable std::once_flag continuing_once_;
  mutable std::unique_ptr<sentencepiece::SentencePieceProcessor> continuing_;
  std::vector<AddedToken> added_;
  AddedTokenMatcher matcher_;
  bool words_are_independent_ = false;  // no piece spans a space behind a word
  bool lines_are_independent_ = false;  // no piece spans a line feed
  mutable ScratchPool<Caches> caches_;
  int32_t byte_ids_[256];  // -1: the vocabulary has no such byte
};

}  // namespace qkv
