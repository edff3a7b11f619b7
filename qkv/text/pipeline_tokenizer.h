// The tokenizer that tokenizer.json describes: added tokens cut out, text normalized, cut into words, words
// split by BPE, WordPiece, Unigram or a list of words, ids framed by a post-processor. Everything but
// SentencePiece becomes one of these.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "qkv/text/added_tokens.h"
#include "qkv/text/bpe_model.h"
#include "qkv/text/decoder.h"
#include "qkv/text/normalizer.h"
#include "qkv/text/pretokenizer.h"
#include "qkv/text/scratch_pool.h"
#include "qkv/text/tokenizer.h"
#include "qkv/text/tokenizer_config.h"
#include "qkv/text/unigram.h"
#include "qkv/text/wordpiece.h"

namespace qkv {

struct VocabularyEntry {
  std::string token;  // as tokenizer.json spells it
  int32_t id = 0;
};

// Largest id that is accepted: above it a file is broken, not a vocabulary.
inline constexpr int32_t kMaximumTokenId = (1 << 22) - 1;

// What a tokenizer is built from. The JSON texts are those of tokenizer.json's keys.
struct TokenizerParts {
  std::string where;  // names the source in errors
  enum class Model { bpe, wordpiece, unigram, wordlevel } model = Model::bpe;
  std::vector<VocabularyEntry> vocabulary;
  std::vector<BpeMerge> merges;  // in the order in which they are written
  BpeOptions bpe;                // byte_level is taken from the pre-tokenizer
  WordPieceOptions wordpiece;
  UnigramOptions unigram;
  std::string wordlevel_unk_token = "<unk>";
  std::vector<AddedToken> added;
  std::string normalizer = "null", pre_tokenizer = "null", post_processor = "null", decoder = "null";
  std::string truncation = "null",
              padding = "null";  // kept for whoever reads the file; encoding ignores them
};

// Reads the text of a tokenizer.json. Throws Error `<where>: ...`.
TokenizerParts parse_tokenizer_json(std::string_view text, const std::string& where);
// Writes it, as Hugging Face's tokenizers library reads it.
std::string write_tokenizer_json(const TokenizerParts& parts);

class PipelineTokenizer : public Tokenizer {
 public:
  // Throws Error `<where>: ...` for what does not fit together. `config` gives the special ids.
  PipelineTokenizer(TokenizerParts parts, const TokenizerConfig& config);
  ~PipelineTokenizer() override;

  std::string_view kind() const override { return model_->kind(); }
  std::string to_json() const override { return write_tokenizer_json(parts_); }
  bool lossless() const override;
  const TokenizerParts& parts() const { return parts_; }

 protected:
  void encode_text(std::string_view text, const EncodeOptions& options,
                   std::vector<int32_t>& ids) const override;
  TokenizerFiles model_files() const override { return {{"tokenizer.json", to_json()}}; }

 private:
  struct Scratch;

  void build_entries();
  void build_model();
  Vocabulary all_words() const;
  Vocabulary reachable_words() const;
  std::unique_ptr<WordModel> make_unigram() const;
  void build_matchers();
  void set_special_ids(const TokenizerConfig& config);
  bool merges_stop_at_marks() const;
  void encode_word(std::string_view word, Scratch& scratch, std::vector<int32_t>& ids) const;
  void encode_words(std::string_view text, bool at_start, Scratch& scratch, std::vector<int32_t>& ids) const;

  TokenizerParts parts_;
  Normalizer normalizer_;
  Pretokenizer pretokenizer_;
  PieceDecoder decoder_;
  std::unique_ptr<WordModel> model_;
  AddedTokenMatcher raw_matcher_;         // tokens found in the text as it is
  AddedTokenMatcher normalized_matcher_;  // tokens found after normalization
  bool cuts_at_marks_ = false;
  mutable ScratchPool<Scratch> scratch_;
};

// GPT-2's pair of files: vocab.json / encoder.json and merges.txt / vocab.bpe.
TokenizerParts parse_gpt2_files(std::string_view vocabulary, const std::string& vocabulary_path,
                                std::string_view merges, const std::string& merges_path,
                                const TokenizerConfig& config);
// Lines "base64(token) rank": llama3's tokenizer.model, qwen.tiktoken, tiktoken's own files.
// The known vocabularies are told by their size; `config` gets their special ids where it has none.
TokenizerParts parse_tiktoken(std::string_view text, const std::string& where, TokenizerConfig& config);
// True if the text looks like such lines.
bool looks_like_tiktoken(std::string_view text);
// BERT's vocab.txt: one token per line, the line number is the id.
TokenizerParts parse_wordpiece_vocabulary(std::string_view text, const std::string& where,
                                          TokenizerConfig& config);

// The pre_tokenizer JSON of a byte-level vocabulary whose words are cut by `pattern`.
std::string byte_level_pretokenizer(std::string_view pattern);

// As "added_tokens" of a tokenizer.json, in the order given.
Json added_tokens_json(const std::vector<AddedToken>& added);

}  // namespace qkv
