// Reading the keys into a SentencePiece model or the parts of a tokenizer.json.
#include "qkv/text/gguf_vocabulary.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <span>

#include "qkv/core/error.h"
#include "qkv/text/byte_alphabet.h"
#include "qkv/text/gguf_keys.h"
#include "qkv/text/gguf_pretokenizers.h"
#include "qkv/text/pipeline_tokenizer.h"
#include "qkv/text/post_processor.h"
#include "qkv/text/sentencepiece_tokenizer.h"

namespace qkv {
namespace {

constexpr std::string_view kSpaceMark = "▁";
constexpr char kByteLevelDecoder[] =
    R"({"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true})";
constexpr char kMarkedDecoder[] =
    R"({"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"}]})";
constexpr char kMarkedNormalizer[] = R"({"type":"Replace","pattern":{"String":" "},"content":"▁"})";

// Spellings of control tokens that end a generation beside EOS, in files that do not say so.
constexpr std::string_view kEndTokens[] = {"<|eot_id|>",    "<|im_end|>",    "<|end|>",
                                           "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>",
                                           "<|eom_id|>",    "<EOT>",         "_<EOT>",
                                           "[EOT]",         "[EOS]",         "<end_of_utterance>",
                                           "<eos>",         "<turn|>",       "<｜end▁of▁sentence｜>",
                                           "<|return|>",    "<|call|>"};

// The keys, checked.
struct Keys {
  explicit Keys(const Metadata& source) : metadata(source), where(source.where()) {
    tokens = source.strings(gguf_key::kTokens);
    require(!tokens.empty(), "{}: {}: expected tokens, found none", where, gguf_key::kTokens);
    require(tokens.size() <= static_cast<size_t>(kMaximumTokenId) + 1,
            "{}: {}: expected at most {} tokens, found {}", where, gguf_key::kTokens, kMaximumTokenId + 1,
            tokens.size());
    types.assign(tokens.size(), PieceType::normal);
    if (source.has(gguf_key::kTypes)) {
      const auto numbers = source.integers(gguf_key::kTypes);
      require(numbers.size() >= tokens.size(), "{}: {}: expected {} types, found {}", where, gguf_key::kTypes,
              tokens.size(), numbers.size());
      for (size_t i = 0; i < tokens.size(); ++i) {
        // Others, such as 0 for "undefined", are tokens like any.
        if (numbers[i] >= 1 && numbers[i] <= 6) types[i] = static_cast<PieceType>(numbers[i]);
      }
    }
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (!tokens[i].empty()) continue;
      tokens[i] = fmt::format("[EMPTY_{}]", i);
      types[i] = PieceType::unused;
    }
  }

  // The id of a special token. `assumed` is llama.cpp's value where the key is missing.
  std::optional<int32_t> id(const char* key, std::optional<int32_t> assumed = std::nullopt) const {
    if (!metadata.has(key)) return in_vocabulary(assumed.value_or(-1));
    const int64_t id = metadata.integer(key);
    // Converters write -1, or its unsigned form, for none; out of range is none for llama.cpp.
    return in_vocabulary(id);
  }
  std::optional<int32_t> in_vocabulary(int64_t id) const {
    if (id < 0 || id >= static_cast<int64_t>(tokens.size())) return std::nullopt;
    return static_cast<int32_t>(id);
  }
  std::optional<std::string> json(const char* key) const {
    return metadata.has(key) ? std::optional(metadata.string(key)) : std::nullopt;
  }

  const Metadata& metadata;
  const std::string& where;
  std::vector<std::string> tokens;
  std::vector<PieceType> types;
};

std::vector<AddedToken> added_tokens_of(const std::string& json, const std::string& where) {
  const Json list = parse_json(json, where);
  require(list.is_array(), "{}: {}: expected a list", where, gguf_key::kAddedTokensJson);
  std::vector<AddedToken> added;
  for (const auto& item : list) {
    const JsonView view(item, where + ": " + gguf_key::kAddedTokensJson);
    added.push_back(parse_added_token(view));
    const int64_t id = view.integer("id");
    require(id >= 0 && id <= kMaximumTokenId, "{}: added token '{}': expected an id from 0 to {}, found {}",
            where, added.back().content, kMaximumTokenId, id);
    added.back().id = static_cast<int32_t>(id);
  }
  return added;
}

// Phi-3's special tokens swallow the white space behind them, which GGUF cannot say: llama.cpp goes by the
// name.
bool strips_behind_special_tokens(const Keys& keys, const std::string& token) {
  std::string name = keys.metadata.string_or("general.name", "");
  std::transform(name.begin(), name.end(), name.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  if (name.find("phi-3") == std::string::npos && name.find("phi3") == std::string::npos) return false;
  return token != "<unk>" && token != "<s>" && token != "<|endoftext|>";
}

// Tokens to be cut out of a text: control tokens and what users defined.
std::vector<AddedToken> added_tokens(const Keys& keys) {
  if (const auto json = keys.json(gguf_key::kAddedTokensJson)) return added_tokens_of(*json, keys.where);
  std::vector<AddedToken> added;
  for (size_t i = 0; i < keys.tokens.size(); ++i) {
    const PieceType type = keys.types[i];
    if (type != PieceType::control && type != PieceType::unknown && type != PieceType::user_defined) continue;
    AddedToken token;
    token.id = static_cast<int32_t>(i);
    token.content = keys.tokens[i];
    token.special = type != PieceType::user_defined;
    token.rstrip = strips_behind_special_tokens(keys, token.content);
    added.push_back(std::move(token));
  }
  return added;
}

std::vector<bool> ids_of(const std::vector<AddedToken>& tokens, size_t size) {
  std::vector<bool> present(size);
  for (const auto& token : tokens) {
    if (static_cast<size_t>(token.id) < size) present[token.id] = true;
  }
  return present;
}

TokenizerConfig configuration(const Keys& keys) {
  TokenizerConfig config;
  config.text = keys.metadata.string_or(gguf_key::kConfigJson, "");
  if (!config.text.empty()) parse_json(config.text, keys.where + ": " + gguf_key::kConfigJson);
  config.chat_template = keys.json(gguf_key::kChatTemplate);
  config.pad_id = keys.id(gguf_key::kPad);
  config.legacy = keys.metadata.boolean_or(gguf_key::kLegacy, true);
  if (keys.metadata.has(gguf_key::kStopIds)) {
    for (const int64_t id : keys.metadata.integers(gguf_key::kStopIds)) {
      if (const auto valid = keys.in_vocabulary(id)) config.stop_ids.push_back(*valid);
    }
    return config;
  }
  for (const char* key : {gguf_key::kEot, gguf_key::kEom}) {
    if (const auto id = keys.id(key)) config.stop_ids.push_back(*id);
  }
  for (size_t i = 0; i < keys.tokens.size(); ++i) {
    const bool cut_out = keys.types[i] == PieceType::control || keys.types[i] == PieceType::user_defined;
    if (cut_out &&
        std::find(std::begin(kEndTokens), std::end(kEndTokens), keys.tokens[i]) != std::end(kEndTokens))
      config.stop_ids.push_back(static_cast<int32_t>(i));
  }
  return config;
}

// ---- SentencePiece ----

// Byte pieces only make sense together: the library wants all or none.
bool has_all_bytes(const Keys& keys) {
  std::array<bool, 256> seen{};
  for (size_t i = 0; i < keys.tokens.size(); ++i) {
    if (keys.types[i] != PieceType::byte) continue;
    const auto byte = byte_of_token(keys.tokens[i]);
    require(byte.has_value(),
            "{}: {}: token {} has the type of a byte: expected a name like <0x0A>, found '{}'", keys.where,
            gguf_key::kTypes, i, keys.tokens[i]);
    seen[*byte] = true;
  }
  return std::all_of(seen.begin(), seen.end(), [](bool present) { return present; });
}

std::string charsmap_of(const Keys& keys) {
  const MetadataValue* value = keys.metadata.find(gguf_key::kCharsmap);
  if (value == nullptr) return {};
  if (const auto* bytes = std::get_if<std::vector<uint8_t>>(value)) return {bytes->begin(), bytes->end()};
  if (const auto* bytes = std::get_if<std::vector<int8_t>>(value)) return {bytes->begin(), bytes->end()};
  fail("{}: {}: expected a list of bytes, found {}", keys.where, gguf_key::kCharsmap, type_name(*value));
}

std::unique_ptr<Tokenizer> sentencepiece(const Keys& keys, SentencePieceProto::Algorithm algorithm) {
  const bool bpe = algorithm == SentencePieceProto::Algorithm::bpe;
  SentencePieceProto proto;
  proto.algorithm = algorithm;
  proto.byte_fallback = has_all_bytes(keys);
  proto.add_dummy_prefix = keys.metadata.boolean_or(gguf_key::kAddSpacePrefix, true);
  proto.remove_extra_whitespaces = keys.metadata.boolean_or(gguf_key::kRemoveExtraWhitespaces, false);
  proto.charsmap = charsmap_of(keys);
  const auto scores = keys.metadata.has(gguf_key::kScores) ? keys.metadata.numbers(gguf_key::kScores)
                                                           : std::vector<double>(keys.tokens.size(), 0.0);
  require(scores.size() >= keys.tokens.size(), "{}: {}: expected {} scores, found {}", keys.where,
          gguf_key::kScores, keys.tokens.size(), scores.size());
  const auto marked = std::find(keys.types.begin(), keys.types.end(), PieceType::unknown);
  const auto assumed =
      marked == keys.types.end() ? (bpe ? 0 : 2) : static_cast<int32_t>(marked - keys.types.begin());
  const auto unk = keys.id(gguf_key::kUnk, assumed);
  require(unk.has_value(), "{}: {}: expected the id of a token, found none", keys.where, gguf_key::kUnk);
  for (size_t i = 0; i < keys.tokens.size(); ++i) {
    PieceType type = keys.types[i];
    if (type == PieceType::byte && !proto.byte_fallback) type = PieceType::unused;
    if (type == PieceType::unknown) type = PieceType::control;  // there is one unknown token
    if (static_cast<int64_t>(i) == *unk) type = PieceType::unknown;
    proto.pieces.push_back({keys.tokens[i], static_cast<float>(scores[i]), type});
  }
  TokenizerConfig config = configuration(keys);
  config.added = added_tokens(keys);
  config.bos_id = keys.id(gguf_key::kBos, bpe ? std::optional(1) : std::nullopt);
  config.eos_id = keys.id(gguf_key::kEos, bpe ? 2 : 1);
  config.add_bos = keys.metadata.boolean_or(gguf_key::kAddBos, bpe);
  config.add_eos = keys.metadata.boolean_or(gguf_key::kAddEos, !bpe);
  proto.unk_id = *unk;
  proto.bos_id = config.bos_id.value_or(-1);
  proto.eos_id = config.eos_id.value_or(-1);
  proto.pad_id = config.pad_id.value_or(-1);
  return std::make_unique<SentencePieceTokenizer>(serialize_sentencepiece_proto(proto), keys.where, config);
}

// ---- tokenizer.json's parts ----

// What the qkv.tokenizer keys say instead.
void override_parts(const Keys& keys, TokenizerParts& parts) {
  const auto replace = [&](const char* key, std::string& into) {
    if (auto json = keys.json(key)) into = std::move(*json);
  };
  replace(gguf_key::kNormalizerJson, parts.normalizer);
  replace(gguf_key::kPretokenizerJson, parts.pre_tokenizer);
  replace(gguf_key::kPostProcessorJson, parts.post_processor);
  replace(gguf_key::kDecoderJson, parts.decoder);
}

// "left right" of the k-th merge. Tokens hold no space, but the first may be one.
std::vector<BpeMerge> merges_of(const Keys& keys) {
  const auto lines = keys.metadata.strings(gguf_key::kMerges);
  std::unordered_map<std::string_view, int32_t> ids;
  ids.reserve(keys.tokens.size());
  for (size_t i = 0; i < keys.tokens.size(); ++i) ids.emplace(keys.tokens[i], static_cast<int32_t>(i));
  std::vector<BpeMerge> merges;
  merges.reserve(lines.size());
  std::string joined;
  for (size_t i = 0; i < lines.size(); ++i) {
    const std::string_view line = lines[i];
    const size_t space = line.find(' ', 1);
    require(space != std::string_view::npos && space + 1 < line.size(),
            "{}: {}: merge {}: expected two tokens with a space between, found '{}'", keys.where,
            gguf_key::kMerges, i, line.substr(0, 80));
    const std::string_view left = line.substr(0, space), right = line.substr(space + 1);
    joined.assign(left);
    joined += right;
    const auto id_of = [&](std::string_view token) {
      const auto found = ids.find(token);
      require(found != ids.end(), "{}: {}: merge {} ('{}'): token '{}' is not in the vocabulary", keys.where,
              gguf_key::kMerges, i, line.substr(0, 80), token);
      return found->second;
    };
    merges.push_back({id_of(left), id_of(right), id_of(joined), static_cast<uint32_t>(i)});
  }
  return merges;
}

std::unique_ptr<Tokenizer> bpe(const Keys& keys, const std::string& model) {
  const std::string name = model == "gemma4" ? model : keys.metadata.string_or(gguf_key::kPre, "default");
  const GgufPretokenizer* pre = find_gguf_pretokenizer(name);
  // Files of ours say how words are cut where no name does.
  require(pre != nullptr || keys.metadata.has(gguf_key::kPretokenizerJson),
          "{}: {}: '{}' is not a pre-tokenizer that is known{}", keys.where, gguf_key::kPre, name,
          suggestion(name, gguf_pretokenizer_names()));
  TokenizerParts parts;
  parts.where = keys.where;
  parts.bpe.ignore_merges = pre != nullptr && pre->ignore_merges;
  const bool marks = pre != nullptr && pre->marks_spaces;
  if (pre != nullptr) parts.pre_tokenizer = dump_json(pretokenizer_json(*pre));
  if (pre != nullptr && pre->normalizes_nfc) parts.normalizer = R"({"type":"NFC"})";
  if (marks) parts.normalizer = kMarkedNormalizer;
  parts.bpe.byte_fallback = marks;
  parts.decoder = marks ? kMarkedDecoder : kByteLevelDecoder;
  parts.added = added_tokens(keys);
  const std::vector<bool> cut_out = ids_of(parts.added, keys.tokens.size());
  for (size_t i = 0; i < keys.tokens.size(); ++i) {
    const bool padding = keys.types[i] == PieceType::unused && keys.tokens[i] == fmt::format("[PAD{}]", i);
    if (!cut_out[i] && !padding) parts.vocabulary.push_back({keys.tokens[i], static_cast<int32_t>(i)});
  }
  parts.merges = merges_of(keys);

  TokenizerConfig config = configuration(keys);
  // Falcon's <|endoftext|> is what llama.cpp assumes for all.
  constexpr int32_t kAssumed = 11;
  const bool assumed = keys.in_vocabulary(kAssumed) && keys.types[kAssumed] == PieceType::control;
  config.bos_id = keys.id(gguf_key::kBos, assumed ? std::optional(kAssumed) : std::nullopt);
  config.eos_id = keys.id(gguf_key::kEos, assumed ? std::optional(kAssumed) : std::nullopt);
  SpecialFrame frame;
  if (config.bos_id && keys.metadata.boolean_or(gguf_key::kAddBos, pre != nullptr && pre->add_bos))
    frame.prefix.push_back(*config.bos_id);
  if (config.eos_id && keys.metadata.boolean_or(gguf_key::kAddEos, false))
    frame.suffix.push_back(*config.eos_id);
  parts.post_processor = dump_json(make_post_processor(frame, [&](int32_t id) { return keys.tokens[id]; }));
  override_parts(keys, parts);
  return std::make_unique<PipelineTokenizer>(std::move(parts), config);
}

// "▁word" begins a word, "ing" goes on: the other way round than in BERT's own files. Tokens in brackets are
// as they are.
std::string wordpiece_spelling(const std::string& token) {
  if (token.starts_with(kSpaceMark)) return token.substr(kSpaceMark.size());
  if (token.starts_with('[') && token.ends_with(']') && token.size() > 1) return token;
  return "##" + token;
}

std::unique_ptr<Tokenizer> wordpiece(const Keys& keys) {
  TokenizerParts parts;
  parts.where = keys.where;
  parts.model = TokenizerParts::Model::wordpiece;
  const auto unk = keys.id(gguf_key::kUnk, 100);
  require(unk.has_value(), "{}: {}: expected the id of a token, found none", keys.where, gguf_key::kUnk);
  parts.wordpiece.unk = *unk;
  parts.wordpiece.max_input_chars_per_word =
      keys.metadata.integer_or(gguf_key::kLongestWord, parts.wordpiece.max_input_chars_per_word);
  parts.added = added_tokens(keys);
  SpecialFrame frame;
  const auto cls = keys.id(gguf_key::kCls, keys.id(gguf_key::kBos, 101)), sep = keys.id(gguf_key::kSep, 102);
  if (cls && keys.metadata.boolean_or(gguf_key::kAddBos, true)) frame.prefix.push_back(*cls);
  if (sep && keys.metadata.boolean_or(gguf_key::kAddEos, true)) frame.suffix.push_back(*sep);
  const auto is_special = [&](int32_t id) {
    return id == *unk || id == cls || id == sep || id == keys.id(gguf_key::kPad, 0) ||
           id == keys.id(gguf_key::kMask, 103);
  };
  const std::vector<bool> cut_out = ids_of(parts.added, keys.tokens.size());
  for (size_t i = 0; i < keys.tokens.size(); ++i) {
    const auto id = static_cast<int32_t>(i);
    const std::string& token = keys.tokens[i];
    const bool as_it_is = cut_out[i] || keys.types[i] == PieceType::unused;
    parts.vocabulary.push_back({as_it_is ? token : wordpiece_spelling(token), id});
    // Older files give every token the same type.
    if (!cut_out[i] && is_special(id) && token.starts_with('[')) {
      AddedToken special;
      special.id = id;
      special.content = token;
      special.special = true;
      parts.added.push_back(std::move(special));
    }
  }
  const bool lowercase = keys.metadata.boolean_or(gguf_key::kLowercase, true);
  parts.normalizer =
      dump_json(Json{{"type", "BertNormalizer"},
                     {"clean_text", true},
                     {"handle_chinese_chars", true},
                     {"strip_accents", keys.metadata.boolean_or(gguf_key::kStripAccents, lowercase)},
                     {"lowercase", lowercase}});
  parts.pre_tokenizer = R"({"type":"BertPreTokenizer"})";
  parts.decoder = R"({"type":"WordPiece","prefix":"##","cleanup":true})";
  parts.post_processor = dump_json(make_post_processor(frame, [&](int32_t id) { return keys.tokens[id]; }));
  override_parts(keys, parts);
  TokenizerConfig config = configuration(keys);
  config.bos_id = cls;
  config.eos_id = sep;
  config.pad_id = keys.id(gguf_key::kPad, 0);
  return std::make_unique<PipelineTokenizer>(std::move(parts), config);
}

}  // namespace

bool has_gguf_vocabulary(const Metadata& metadata) {
  return metadata.has(gguf_key::kModel) && metadata.has(gguf_key::kTokens);
}

std::unique_ptr<Tokenizer> tokenizer_from_gguf(const Metadata& metadata) {
  require(metadata.has(gguf_key::kModel), "{}: expected a vocabulary ({}), found none", metadata.where(),
          gguf_key::kModel);
  const std::string model = metadata.string(gguf_key::kModel);
  require(model == "llama" || model == "t5" || model == "gpt2" || model == "gemma4" || model == "bert",
          "{}: {}: expected llama, gpt2, gemma4, bert or t5, found '{}', which is not supported",
          metadata.where(), gguf_key::kModel, model);
  const Keys keys(metadata);
  if (model == "llama") return sentencepiece(keys, SentencePieceProto::Algorithm::bpe);
  if (model == "t5") return sentencepiece(keys, SentencePieceProto::Algorithm::unigram);
  if (model == "bert") return wordpiece(keys);
  return bpe(keys, model);
}

}  // namespace qkv
