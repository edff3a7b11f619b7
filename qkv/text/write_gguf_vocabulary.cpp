// Writing any tokenizer as `tokenizer.ggml.*` keys.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "qkv/core/error.h"
#include "qkv/core/log.h"
#include "qkv/text/byte_alphabet.h"
#include "qkv/text/gguf_keys.h"
#include "qkv/text/gguf_pretokenizers.h"
#include "qkv/text/gguf_vocabulary.h"
#include "qkv/text/pipeline_tokenizer.h"
#include "qkv/text/sentencepiece_parts.h"

namespace qkv {
namespace {

constexpr float kAddedScore = -1000;  // as converters write for tokens without one
constexpr char kUnknownPre[] = "unknown";

class VocabularyWriter {
 public:
  VocabularyWriter(const Tokenizer& tokenizer, int64_t size, Metadata& metadata)
      : tokenizer_(tokenizer), metadata_(metadata) {
    require(tokenizer.vocab_size() <= size, "GGUF vocabulary: the tokenizer has {} ids, the model only {}",
            tokenizer.vocab_size(), size);
    require(size <= int64_t{kMaximumTokenId} + 1, "GGUF vocabulary: expected at most {} ids, found {}",
            kMaximumTokenId + 1, size);
    tokens_.resize(static_cast<size_t>(size));
    types_.assign(tokens_.size(), static_cast<int32_t>(PieceType::unused));
    scores_.assign(tokens_.size(), kAddedScore);
  }

  void put(int32_t id, std::string token, PieceType type, float score = kAddedScore) {
    tokens_[id] = std::move(token);
    types_[id] = static_cast<int32_t>(type);
    scores_[id] = score;
  }
  void put_added(const std::vector<AddedToken>& added) {
    for (const auto& token : added)
      put(token.id, token.content, token.special ? PieceType::control : PieceType::user_defined,
          scores_[token.id]);
  }

  // Model, tokens, types and, if they mean something, scores.
  void write(const char* model, bool with_scores) {
    for (size_t i = 0; i < tokens_.size(); ++i) {
      if (tokens_[i].empty()) tokens_[i] = fmt::format("[PAD{}]", i);
    }
    std::unordered_set<std::string_view> seen;
    for (const auto& token : tokens_)
      require(seen.insert(token).second, "GGUF vocabulary: two tokens read '{}', which GGUF cannot hold",
              token);
    metadata_.set(gguf_key::kModel, std::string(model));
    metadata_.set(gguf_key::kTokens, std::move(tokens_));
    if (with_scores) metadata_.set(gguf_key::kScores, std::move(scores_));
    metadata_.set(gguf_key::kTypes, std::move(types_));
  }

  // Special ids, what is put around a text, the chat template.
  void write_special() {
    const auto put_id = [&](const char* key, std::optional<int32_t> id) {
      if (id) metadata_.set(key, static_cast<uint32_t>(*id));
    };
    const auto &prefix = tokenizer_.prefix_ids(), &suffix = tokenizer_.suffix_ids();
    // What is put in front is what llama.cpp calls BOS, whatever it is called elsewhere.
    const auto bos = prefix.empty() ? tokenizer_.bos_id() : std::optional(prefix.front());
    const auto eos = suffix.empty() ? tokenizer_.eos_id() : std::optional(suffix.back());
    put_id(gguf_key::kBos, bos);
    put_id(gguf_key::kEos, eos);
    put_id(gguf_key::kUnk, tokenizer_.unk_id());
    put_id(gguf_key::kPad, tokenizer_.pad_id());
    for (const int32_t id : tokenizer_.stop_ids()) {
      if (id == eos) continue;
      const bool end_of_message = tokenizer_.id_to_token(id) == "<|eom_id|>";
      const char* key = end_of_message ? gguf_key::kEom : gguf_key::kEot;
      if (!metadata_.has(key)) put_id(key, id);
    }
    metadata_.set(gguf_key::kAddBos, !prefix.empty());
    metadata_.set(gguf_key::kAddEos, !suffix.empty());
    if (prefix.size() > 1 || suffix.size() > 1) warn("puts several tokens around a text");
    if (tokenizer_.chat_template()) metadata_.set(gguf_key::kChatTemplate, *tokenizer_.chat_template());
  }

  static void warn(const std::string& what) {
    log_warning("GGUF vocabulary: llama.cpp will give other ids: the tokenizer {}", what);
  }

  Metadata& metadata() { return metadata_; }
  const Tokenizer& tokenizer() const { return tokenizer_; }

 private:
  const Tokenizer& tokenizer_;
  Metadata& metadata_;
  std::vector<std::string> tokens_;
  std::vector<int32_t> types_;
  std::vector<float> scores_;
};

// ---- SentencePiece ----

void write_sentencepiece(VocabularyWriter& writer, const SentencePieceProto& proto,
                         const std::vector<AddedToken>& added, bool prefix_every_part) {
  using Algorithm = SentencePieceProto::Algorithm;
  require(proto.algorithm == Algorithm::bpe || proto.algorithm == Algorithm::unigram,
          "GGUF vocabulary: SentencePiece models of words or characters have no counterpart in GGUF");
  require(!proto.treat_whitespace_as_suffix && proto.escape_whitespaces,
          "GGUF vocabulary: SentencePiece models with spaces behind words or unmarked spaces have no "
          "counterpart in "
          "GGUF");
  const bool bpe = proto.algorithm == Algorithm::bpe;
  for (size_t i = 0; i < proto.pieces.size(); ++i)
    writer.put(static_cast<int32_t>(i), proto.pieces[i].text, proto.pieces[i].type, proto.pieces[i].score);
  for (const auto& token : added) {
    const bool unknown = static_cast<size_t>(token.id) < proto.pieces.size() &&
                         proto.pieces[token.id].type == PieceType::unknown;
    if (!unknown) writer.put_added({token});
  }
  writer.write(bpe ? "llama" : "t5", true);
  Metadata& metadata = writer.metadata();
  metadata.set(gguf_key::kPre, std::string("default"));
  metadata.set(gguf_key::kAddSpacePrefix, proto.add_dummy_prefix);
  metadata.set(gguf_key::kRemoveExtraWhitespaces, proto.remove_extra_whitespaces);
  if (!proto.charsmap.empty()) {
    metadata.set(gguf_key::kCharsmap, std::vector<uint8_t>(proto.charsmap.begin(), proto.charsmap.end()));
  }
  if (bpe && !proto.charsmap.empty()) writer.warn("rewrites characters before it merges them");
  if (bpe && proto.remove_extra_whitespaces) writer.warn("drops extra spaces");
  if (bpe && !proto.byte_fallback) writer.warn("has no tokens for the bytes of unknown characters");
  if (!prefix_every_part && proto.add_dummy_prefix) writer.warn("puts no space behind special tokens");
  if (!prefix_every_part) metadata.set(gguf_key::kLegacy, false);
  writer.write_special();
}

// ---- BPE ----

// True if merging alone gives each token from its own text.
bool merges_reach_every_token(const TokenizerParts& parts) {
  Vocabulary words;
  words.reserve(parts.vocabulary.size());
  for (const auto& [token, id] : parts.vocabulary) {
    if (auto bytes = unspell_bytes(token)) words.emplace(std::move(*bytes), id);
  }
  BpeOptions options = parts.bpe;
  options.ignore_merges = false;
  const BpeModel model(words, parts.merges, options);
  WordScratch scratch;
  std::vector<int32_t> ids;
  return std::all_of(words.begin(), words.end(), [&](const auto& word) {
    ids.clear();
    model.encode_word(word.first, scratch, ids);
    return ids.size() == 1 && ids[0] == word.second;
  });
}

// The row of the table that cuts and merges like this; null if there is none.
const GgufPretokenizer* matching_pretokenizer(const TokenizerParts& parts) {
  const auto patterns = pretokenizer_patterns(parse_json(parts.pre_tokenizer, parts.where));
  if (!patterns) return nullptr;
  const bool nfc = parts.normalizer == R"({"type":"NFC"})";
  const GgufPretokenizer* best = nullptr;
  int best_agreement = -1;
  for (const auto& row : gguf_pretokenizers()) {
    if (row.marks_spaces ||
        !std::equal(row.patterns.begin(), row.patterns.end(), patterns->begin(), patterns->end()))
      continue;
    const int agreement = 2 * (row.ignore_merges == parts.bpe.ignore_merges) + (row.normalizes_nfc == nfc);
    if (agreement > best_agreement) {
      best = &row;
      best_agreement = agreement;
    }
  }
  if (best && best->ignore_merges != parts.bpe.ignore_merges && !merges_reach_every_token(parts))
    return nullptr;
  return best;
}

void write_byte_bpe(VocabularyWriter& writer, const TokenizerParts& parts) {
  require(parts.bpe.continuing_subword_prefix.empty() && parts.bpe.end_of_word_suffix.empty(),
          "GGUF vocabulary: BPE with a prefix or suffix of words ('{}', '{}') has no counterpart in GGUF",
          parts.bpe.continuing_subword_prefix, parts.bpe.end_of_word_suffix);
  const GgufPretokenizer* pre = matching_pretokenizer(parts);
  if (pre == nullptr) {
    log_warning(
        "GGUF vocabulary: no pre-tokenizer that GGUF knows cuts words like {}; its name is written as '{}', "
        "which "
        "llama.cpp will refuse",
        parts.pre_tokenizer.substr(0, 400), kUnknownPre);
  }
  if (parts.normalizer != "null" && !parse_json(parts.normalizer, parts.where).is_null() &&
      !(pre && pre->normalizes_nfc && parts.normalizer == R"({"type":"NFC"})")) {
    log_warning("GGUF vocabulary: llama.cpp will not apply the normalizer {}",
                parts.normalizer.substr(0, 120));
  }
  for (const auto& [token, id] : parts.vocabulary) writer.put(id, token, PieceType::normal);
  writer.put_added(parts.added);
  std::vector<std::string> spellings(static_cast<size_t>(writer.tokenizer().vocab_size()));
  for (const auto& [token, id] : parts.vocabulary) spellings[id] = token;
  std::vector<std::string> merges;
  merges.reserve(parts.merges.size());
  for (const auto& merge : parts.merges) {
    const std::string &left = spellings[merge.left], &right = spellings[merge.right];
    require(left.find(' ', 1) == std::string::npos && right.find(' ') == std::string::npos,
            "GGUF vocabulary: merge '{}' + '{}' holds a space, which GGUF cannot express", left, right);
    merges.push_back(left + " " + right);
  }
  writer.write("gpt2", false);
  Metadata& metadata = writer.metadata();
  metadata.set(gguf_key::kPre, std::string(pre ? pre->names.front() : kUnknownPre));
  if (pre == nullptr) metadata.set(gguf_key::kPretokenizerJson, parts.pre_tokenizer);
  metadata.set(gguf_key::kMerges, std::move(merges));
  writer.write_special();
}

// ---- WordPiece ----

void write_wordpiece(VocabularyWriter& writer, const TokenizerParts& parts) {
  require(parts.wordpiece.continuing_subword_prefix == "##",
          "GGUF vocabulary: WordPiece continuations begin with '{}', but GGUF knows only '##'",
          parts.wordpiece.continuing_subword_prefix);
  for (const auto& [token, id] : parts.vocabulary) {
    const bool bracketed = token.size() > 1 && token.starts_with('[') && token.ends_with(']');
    writer.put(id,
               token.starts_with("##") ? token.substr(2)
               : bracketed             ? token
                                       : "▁" + token,
               PieceType::normal);
  }
  writer.put_added(parts.added);
  writer.put(parts.wordpiece.unk, writer.tokenizer().id_to_token(parts.wordpiece.unk), PieceType::unknown);
  writer.write("bert", false);
  Metadata& metadata = writer.metadata();
  const Json json = parse_json(parts.normalizer, parts.where);
  bool lowercase = false, strip_accents = false;
  if (json.is_object() && json.value("type", "") == "BertNormalizer") {
    const JsonView view(json, parts.where);
    lowercase = view.boolean_or("lowercase", true);
    strip_accents = view.boolean_or("strip_accents", lowercase);
    if (!view.boolean_or("handle_chinese_chars", true)) writer.warn("keeps ideographs together");
  } else {
    log_warning("GGUF vocabulary: llama.cpp will not apply the normalizer {}",
                parts.normalizer.substr(0, 120));
  }
  if (parts.wordpiece.max_input_chars_per_word != WordPieceOptions().max_input_chars_per_word)
    metadata.set(gguf_key::kLongestWord, parts.wordpiece.max_input_chars_per_word);
  metadata.set(gguf_key::kLowercase, lowercase);
  metadata.set(gguf_key::kStripAccents, strip_accents);
  writer.write_special();
  if (!writer.tokenizer().prefix_ids().empty())
    metadata.set(gguf_key::kCls, static_cast<uint32_t>(writer.tokenizer().prefix_ids().front()));
  if (!writer.tokenizer().suffix_ids().empty())
    metadata.set(gguf_key::kSep, static_cast<uint32_t>(writer.tokenizer().suffix_ids().back()));
  if (const auto mask = writer.tokenizer().token_to_id("[MASK]"))
    metadata.set(gguf_key::kMask, static_cast<uint32_t>(*mask));
}

void write_parts(VocabularyWriter& writer, const TokenizerParts& parts) {
  switch (parts.model) {
    case TokenizerParts::Model::wordpiece:
      return write_wordpiece(writer, parts);
    case TokenizerParts::Model::wordlevel:
      fail("GGUF vocabulary: GGUF has no vocabularies of whole words");
    case TokenizerParts::Model::bpe:
      if (parts.bpe.byte_level) return write_byte_bpe(writer, parts);
      break;
    case TokenizerParts::Model::unigram:
      break;
  }
  const SentencePieceForm form = sentencepiece_form(parts);
  for (const auto& difference : form.differences) writer.warn("has " + difference);
  write_sentencepiece(writer, form.proto, parts.added, form.prefix_every_part);
}

// ---- what the keys cannot say ----

std::vector<AddedToken> added_by_id(const Tokenizer& tokenizer) {
  if (const auto* piece = dynamic_cast<const SentencePieceTokenizer*>(&tokenizer))
    return all_added_tokens(*piece);
  auto added = dynamic_cast<const PipelineTokenizer&>(tokenizer).parts().added;
  std::sort(added.begin(), added.end(), [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
  return added;
}

// Compares the tokenizer with what the keys give when read, and keeps the differences.
void keep_differences(const Tokenizer& tokenizer, Metadata& metadata) {
  const auto read = tokenizer_from_gguf(metadata);
  const auto* parts = dynamic_cast<const PipelineTokenizer*>(&tokenizer);
  const auto* read_parts = dynamic_cast<const PipelineTokenizer*>(read.get());
  if (parts && read_parts) {
    const auto keep = [&](const char* key, const std::string& own, const std::string& derived) {
      if (parse_json(own, "tokenizer") != parse_json(derived, "tokenizer")) metadata.set(key, own);
    };
    keep(gguf_key::kNormalizerJson, parts->parts().normalizer, read_parts->parts().normalizer);
    keep(gguf_key::kPretokenizerJson, parts->parts().pre_tokenizer, read_parts->parts().pre_tokenizer);
    keep(gguf_key::kPostProcessorJson, parts->parts().post_processor, read_parts->parts().post_processor);
    keep(gguf_key::kDecoderJson, parts->parts().decoder, read_parts->parts().decoder);
  }
  const auto added = added_by_id(tokenizer);
  if (added != added_by_id(*read))
    metadata.set(gguf_key::kAddedTokensJson, dump_json(added_tokens_json(added)));
  if (read->stop_ids() != tokenizer.stop_ids()) metadata.set(gguf_key::kStopIds, tokenizer.stop_ids());
  // Without what the keys have: the template and the added tokens.
  Json config = tokenizer.configuration();
  for (const char* key : {"chat_template", "added_tokens_decoder"}) config.erase(key);
  if (!config.empty()) metadata.set(gguf_key::kConfigJson, dump_json(config));
}

}  // namespace

void write_gguf_vocabulary(const Tokenizer& tokenizer, int64_t vocabulary_size, Metadata& metadata) {
  std::vector<std::string> old;
  for (const auto& [key, value] : metadata.values()) {
    const bool ours = key.starts_with("tokenizer.") || key.starts_with("qkv.tokenizer.");
    if (ours && key != gguf_key::kTokenTypeCount) old.push_back(key);
  }
  for (const auto& key : old) metadata.erase(key);
  VocabularyWriter writer(tokenizer, vocabulary_size, metadata);
  if (const auto* piece = dynamic_cast<const SentencePieceTokenizer*>(&tokenizer)) {
    write_sentencepiece(writer, piece->proto(), piece->added_tokens(), piece->prefixes_every_part());
  } else if (const auto* pipeline = dynamic_cast<const PipelineTokenizer*>(&tokenizer)) {
    write_parts(writer, pipeline->parts());
  } else {
    fail("GGUF vocabulary: tokenizers of kind '{}' cannot be written", tokenizer.kind());
  }
  keep_differences(tokenizer, metadata);
}

}  // namespace qkv
