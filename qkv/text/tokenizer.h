// Text to token ids and back: the one interface behind every vocabulary (byte-level BPE, BPE with byte
// fallback, WordPiece, SentencePiece), and how to load one.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "qkv/core/json.h"
#include "qkv/text/join_rules.h"
#include "qkv/text/text_range.h"

namespace qkv {

// A tokenizer's files by their names: "tokenizer.json", "tokenizer_config.json", ...
using TokenizerFiles = std::map<std::string, std::string>;

struct EncodeOptions {
  // Put the tokens that the vocabulary's post-processor adds around a text (BOS, EOS, [CLS] ... [SEP]).
  bool add_special = true;
  // Recognize the spelling of special tokens ("<|im_end|>") in the text; false reads them as plain
  // characters, which is what text from strangers needs. Added tokens that are not special are recognized
  // either way.
  bool parse_special = true;
  // Bytes of the text in which special tokens are not recognized though parse_special is set: what strangers
  // said, in a text whose other parts mark its structure. In ascending order.
  std::span<const TextRange> plain = {};
};

// Immutable after loading; every const method may be called from many threads at once.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // Any bytes are accepted. Byte-level vocabularies reproduce invalid UTF-8 exactly when decoded; the others
  // put their byte tokens or their unknown token for it.
  std::vector<int32_t> encode(std::string_view text, const EncodeOptions& options = {}) const;
  // One result per text, computed in parallel.
  std::vector<std::vector<int32_t>> encode_batch(std::span<const std::string> texts,
                                                 const EncodeOptions& options = {}) const;
  // The bytes the ids spell, not necessarily valid UTF-8 (see replace_invalid_utf8 and StreamDecoder). Ids
  // outside the vocabulary, which a model with padded embeddings may emit, spell nothing.
  std::string decode(std::span<const int32_t> ids, bool skip_special = true) const;

  // What the token adds to a running text, as raw bytes: " the" for "Ġthe" and "▁the", "\n" for "<0x0A>". A
  // special token gives its spelling. Empty outside the vocabulary.
  const std::string& token_bytes(int32_t id) const;
  const JoinRules& join_rules() const { return join_; }

  // One more than the largest id, added tokens included.
  int32_t vocab_size() const { return static_cast<int32_t>(entries_.size()); }
  // By the vocabulary's own spelling ("Ġthe", "▁the", "<|im_end|>").
  std::optional<int32_t> token_to_id(std::string_view token) const;
  // The vocabulary's own spelling; empty for an id that is not in use.
  const std::string& id_to_token(int32_t id) const;
  // Control tokens: BOS, EOS, padding, chat markers.
  bool is_special(int32_t id) const;

  std::optional<int32_t> bos_id() const { return bos_; }
  std::optional<int32_t> eos_id() const { return eos_; }
  std::optional<int32_t> pad_id() const { return pad_; }
  std::optional<int32_t> unk_id() const { return unk_; }
  // Every id that ends a generation: eos_id() first, then what generation_config.json lists (end of turn).
  const std::vector<int32_t>& stop_ids() const { return stop_; }
  // What add_special puts before and after a text.
  const std::vector<int32_t>& prefix_ids() const { return prefix_; }
  const std::vector<int32_t>& suffix_ids() const { return suffix_; }

  // Each throws Error if the id is outside the vocabulary.
  void set_bos_id(std::optional<int32_t> id);
  void set_eos_id(std::optional<int32_t> id);
  void set_pad_id(std::optional<int32_t> id);
  void set_stop_ids(std::vector<int32_t> ids);

  // The Jinja source that came with the vocabulary (see text/chat_template.h).
  const std::optional<std::string>& chat_template() const { return chat_template_; }
  void set_chat_template(std::optional<std::string> source) { chat_template_ = std::move(source); }
  // Further templates by name, such as "tool_use".
  const std::map<std::string, std::string>& named_templates() const { return named_templates_; }
  void set_named_templates(std::map<std::string, std::string> sources) { named_templates_ = std::move(sources); }

  // True if decode(encode(bytes, {false, false})) gives back any bytes: a token for every byte, and nothing
  // that is rewritten or dropped.
  virtual bool lossless() const { return false; }
  // tokenizer_config.json as it was read; an empty object if there was none.
  Json configuration() const;

  // "byte-bpe", "bpe", "wordpiece", "sentencepiece-bpe", "sentencepiece-unigram", ...
  virtual std::string_view kind() const = 0;
  // The text of a Hugging Face tokenizer.json that gives the same ids. Throws Error naming what keeps it from
  // being written if not has_json(), which only rare settings of SentencePiece do.
  virtual std::string to_json() const = 0;
  virtual bool has_json() const { return true; }
  // Everything there is to know about the tokenizer: its model (tokenizer.json or tokenizer.model),
  // tokenizer_config.json, special_tokens_map.json and, with several stop ids, generation_config.json.
  // tokenizer_from_files() gives an equal tokenizer.
  TokenizerFiles files() const;
  // Writes the files into the directory, creating it if needed; a generation_config.json that is there keeps
  // its other keys. SentencePiece models are written as tokenizer.json as well, for readers without that
  // library.
  void save(const std::string& directory) const;

 protected:
  struct Entry {
    std::string surface;  // the vocabulary's spelling
    std::string bytes;    // what it adds to a running text
    bool special = false;
    bool used = false;
  };

  Tokenizer() = default;
  // Appends the ids of `text` without prefix and suffix.
  virtual void encode_text(std::string_view text, const EncodeOptions& options,
                           std::vector<int32_t>& ids) const = 0;
  // The model's own file.
  virtual TokenizerFiles model_files() const = 0;
  // What Hugging Face's library calls such a tokenizer, where no configuration says so.
  virtual std::string_view tokenizer_class() const { return "PreTrainedTokenizerFast"; }
  // Adds or replaces the entry of `id`, growing the table. Call index_entries() when all are in.
  Entry& entry(int32_t id);
  void index_entries();
  // Throws Error `<where>: ...` unless the largest of `count` ids is one that a vocabulary of so many tokens
  // can have: tables are as long as the ids are large.
  static void require_dense(int32_t largest, size_t count, const std::string& where);
  Json stop_keys(Json generation) const;
  void require_in_vocabulary(std::optional<int32_t> id, std::string_view what) const;

  std::vector<Entry> entries_;
  std::unordered_map<std::string_view, int32_t> ids_;  // by surface; points into entries_
  std::vector<int32_t> prefix_, suffix_;
  std::optional<int32_t> bos_, eos_, pad_, unk_;
  std::vector<int32_t> stop_;
  std::optional<std::string> chat_template_;
  std::map<std::string, std::string> named_templates_;
  std::string config_text_;  // tokenizer_config.json as it was read; its other keys survive save()
  JoinRules join_;
};

// A file or a directory; the kind is found by content. In a directory, the first of tokenizer.json,
// tokenizer.model (SentencePiece, or base64 ranks), vocab.json + merges.txt, encoder.json + vocab.bpe,
// *.tiktoken, *.model, vocab.txt, tokenizer.bin (llama2.c); tokenizer_config.json, special_tokens_map.json,
// generation_config.json, added_tokens.json and chat_template.jinja beside it complete it. Throws Error
// naming the file and what is wrong with it.
std::unique_ptr<Tokenizer> load_tokenizer(const std::string& directory_or_file);
// The same from memory. `where` names the source in errors.
std::unique_ptr<Tokenizer> tokenizer_from_files(const TokenizerFiles& files, const std::string& where);

// Ids one by one to text that can be shown as it comes: only whole, valid UTF-8 leaves, and the concatenation
// of everything returned equals replace_invalid_utf8(decode(ids)).
class StreamDecoder {
 public:
  // The tokenizer must outlive the decoder. With `continues`, the text goes on from earlier tokens: no
  // leading space is dropped.
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special = true, bool continues = false);
  // The text that became complete with this id; often empty in the middle of a character.
  std::string push(int32_t id);
  // What is left: an unfinished character becomes U+FFFD. Afterwards the decoder is as new.
  std::string finish();

 private:
  const Tokenizer& tokenizer_;
  std::string pending_;
  bool skip_special_;
  bool at_start_;
  bool starts_at_start_;
  std::optional<int32_t> previous_;
};

}  // namespace qkv
