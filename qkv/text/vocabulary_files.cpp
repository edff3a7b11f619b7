// Vocabularies that are not a tokenizer.json: GPT-2's pair of files, tiktoken ranks, BERT's list of words.
#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/core/log.h"
#include "qkv/core/utf8.h"
#include "qkv/text/base64.h"
#include "qkv/text/byte_alphabet.h"
#include "qkv/text/patterns.h"
#include "qkv/text/pipeline_tokenizer.h"
#include "qkv/text/post_processor.h"

namespace qkv {
namespace {

constexpr char kByteLevelDecoder[] =
    R"({"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true})";

// Calls visit(line, number from 1) without the line's end, CRLF included.
template <typename Visit>
void for_each_line(std::string_view text, Visit&& visit) {
  for (size_t number = 1; !text.empty(); ++number) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    visit(line, number);
  }
}

struct RankedToken {
  std::string bytes;
  int32_t rank = 0;
};

std::optional<RankedToken> parse_rank_line(std::string_view line) {
  const size_t space = line.find(' ');
  if (space == std::string_view::npos) return std::nullopt;
  auto bytes = decode_base64(line.substr(0, space));
  int32_t rank = -1;
  const auto [stop, code] = std::from_chars(line.data() + space + 1, line.data() + line.size(), rank);
  if (!bytes || code != std::errc() || stop != line.data() + line.size() || rank < 0) return std::nullopt;
  return RankedToken{std::move(*bytes), rank};
}

// What tiktoken's callers keep in code rather than in the file.
struct KnownRanks {
  size_t count;
  std::string_view pattern;
  bool normalize_nfc;
  std::vector<std::string> special;  // ids from `count` on; an empty name leaves its id out
  std::string bos, eos, pad;
  std::vector<std::string> stop;
  bool add_bos;
};

KnownRanks known_ranks(size_t count, const std::string& where) {
  switch (count) {
    case 128000: {  // Llama 3, with the names that 3.1 gave to reserved ids
      KnownRanks llama{
          count,
          kLlama3Pattern,
          false,
          {"<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>",
           "<|reserved_special_token_1|>", "<|finetune_right_pad_id|>", "<|reserved_special_token_2|>",
           "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|python_tag|>"},
          "<|begin_of_text|>",
          "<|end_of_text|>",
          "<|finetune_right_pad_id|>",
          {"<|eom_id|>", "<|eot_id|>"},
          true};
      for (int i = 3; llama.special.size() < 256; ++i) {
        llama.special.push_back(fmt::format("<|reserved_special_token_{}|>", i));
      }
      return llama;
    }
    case 151643: {  // Qwen, Qwen2
      KnownRanks qwen{count,
                      kQwen2Pattern,
                      true,
                      {"<|endoftext|>", "<|im_start|>", "<|im_end|>"},
                      "",
                      "<|endoftext|>",
                      "<|endoftext|>",
                      {"<|im_end|>"},
                      false};
      return qwen;
    }
    case 50256:
      return {count, kGpt2Pattern, false, {"<|endoftext|>"}, "", "<|endoftext|>", "", {}, false};
    case 50280:
      return {count, kGpt2Pattern, false, {"<|endoftext|>"}, "", "<|endoftext|>", "", {}, false};
    case 100256:  // cl100k_base
      return {count, kLlama3Pattern,
              false, {"", "<|endoftext|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"},
              "",    "<|endoftext|>",
              "",    {},
              false};
    case 199998:
      return {count, kO200kPattern, false, {"", "<|endoftext|>"}, "", "<|endoftext|>", "", {}, false};
    default:
      log_warning("{}: {} ranks are no vocabulary that is known by its size; cutting words as Llama 3 does",
                  where, count);
      return {count, kLlama3Pattern, false, {}, "", "", "", {}, false};
  }
}

// Bytes -> rank. Most of a million look-ups find nothing: a part of the hash beside each slot says so at
// once.
class RankTable {
 public:
  explicit RankTable(const std::vector<RankedToken>& tokens) : tokens_(tokens) {
    size_t size = 16;
    while (size < tokens.size() * 4) size *= 2;
    slots_.assign(size, Slot{});
    for (uint32_t i = 0; i < tokens.size(); ++i) {
      Slot* slot = find_slot(tokens[i].bytes);
      if (slot->index == kEmpty) *slot = {tag(tokens[i].bytes), i};
    }
  }
  // -1 if there is no such token.
  int32_t find(std::string_view bytes) {
    const Slot* slot = find_slot(bytes);
    return slot->index == kEmpty ? -1 : tokens_[slot->index].rank;
  }

 private:
  static constexpr uint32_t kEmpty = ~uint32_t{0};
  struct Slot {
    uint32_t tag = 0;
    uint32_t index = kEmpty;
  };
  static uint32_t tag(std::string_view bytes) {
    return static_cast<uint32_t>(std::hash<std::string_view>()(bytes) >> 32);
  }
  Slot* find_slot(std::string_view bytes) {
    const size_t hash = std::hash<std::string_view>()(bytes);
    const auto wanted = static_cast<uint32_t>(hash >> 32);
    for (size_t i = hash & (slots_.size() - 1);; i = (i + 1) & (slots_.size() - 1)) {
      Slot& slot = slots_[i];
      if (slot.index == kEmpty || (slot.tag == wanted && tokens_[slot.index].bytes == bytes)) return &slot;
    }
  }
  const std::vector<RankedToken>& tokens_;
  std::vector<Slot> slots_;
};

// tiktoken merges any neighbours that join to a token, lowest rank first: as merges, every way to cut each
// token in two tokens, at the token's rank.
std::vector<BpeMerge> merges_of_ranks(const std::vector<RankedToken>& tokens) {
  RankTable ranks(tokens);
  std::vector<BpeMerge> merges;
  for (const auto& token : tokens) {
    const std::string_view bytes = token.bytes;
    const size_t first = merges.size();
    for (size_t cut = 1; cut < bytes.size(); ++cut) {
      const int32_t left = ranks.find(bytes.substr(0, cut));
      const int32_t right = left >= 0 ? ranks.find(bytes.substr(cut)) : -1;
      if (right >= 0) merges.push_back({left, right, token.rank, static_cast<uint32_t>(token.rank)});
    }
    std::sort(merges.begin() + static_cast<ptrdiff_t>(first), merges.end(),
              [](const BpeMerge& a, const BpeMerge& b) {
                return a.left != b.left ? a.left < b.left : a.right < b.right;
              });
  }
  return merges;
}

AddedToken control_token(int32_t id, std::string content) {
  AddedToken token;
  token.id = id;
  token.content = std::move(content);
  token.special = true;
  return token;
}

}  // namespace

std::string byte_level_pretokenizer(std::string_view pattern) {
  if (pattern == kGpt2Pattern) {
    return R"({"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true})";
  }
  const Json split = {{"type", "Split"},
                      {"pattern", {{"Regex", std::string(pattern)}}},
                      {"behavior", "Isolated"},
                      {"invert", false}};
  const Json bytes = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}};
  return dump_json(Json{{"type", "Sequence"}, {"pretokenizers", Json::array({split, bytes})}});
}

TokenizerParts parse_gpt2_files(std::string_view vocabulary, const std::string& vocabulary_path,
                                std::string_view merges_text, const std::string& merges_path,
                                const TokenizerConfig& config) {
  // The two files are a tokenizer.json's model in another dress.
  Json merges = Json::array();
  for_each_line(merges_text, [&](std::string_view line, size_t number) {
    if (line.empty() || (number == 1 && line.starts_with("#version"))) return;
    const size_t space = line.find(' ');
    require(space != std::string_view::npos && space > 0 && space + 1 < line.size() &&
                line.find(' ', space + 1) == std::string_view::npos,
            "{}: line {}: expected two tokens with a space between, found '{}'", merges_path, number,
            replace_invalid_utf8(line.substr(0, 80)));
    merges.push_back(line);
  });
  const std::string text = R"({"model":{"type":"BPE","vocab":)" + std::string(vocabulary) + R"(,"merges":)" +
                           dump_json(merges) + "}}";
  TokenizerParts parts = parse_tokenizer_json(text, vocabulary_path);
  const bool qwen = config.tokenizer_class.starts_with("Qwen2");
  parts.pre_tokenizer = byte_level_pretokenizer(qwen ? kQwen2Pattern : kGpt2Pattern);
  if (qwen) parts.normalizer = R"({"type":"NFC"})";
  parts.decoder = kByteLevelDecoder;
  // Control tokens that the vocabulary itself holds.
  std::vector<std::string> named = {"<|endoftext|>"};
  for (const auto* token : {&config.bos_token, &config.eos_token, &config.pad_token, &config.unk_token}) {
    if (*token) named.push_back(**token);
  }
  SpecialFrame frame;
  for (const auto& entry : parts.vocabulary) {
    if (std::find(named.begin(), named.end(), entry.token) == named.end()) continue;
    parts.added.push_back(control_token(entry.id, entry.token));
    if (config.tokenizer_class.starts_with("Roberta")) {
      if (entry.token == config.bos_token) frame.prefix = {entry.id};
      if (entry.token == config.eos_token) frame.suffix = {entry.id};
    }
  }
  const auto spelling = [&](int32_t id) {
    for (const auto& token : parts.added) {
      if (token.id == id) return token.content;
    }
    return std::string();
  };
  parts.post_processor = dump_json(make_post_processor(frame, spelling));
  return parts;
}

bool looks_like_tiktoken(std::string_view text) {
  std::string_view line = text.substr(0, text.find('\n'));
  if (line.ends_with('\r')) line.remove_suffix(1);
  return parse_rank_line(line).has_value();
}

TokenizerParts parse_tiktoken(std::string_view text, const std::string& where, TokenizerConfig& config) {
  std::vector<RankedToken> tokens;
  for_each_line(text, [&](std::string_view line, size_t number) {
    if (line.empty()) return;
    auto token = parse_rank_line(line);
    require(token.has_value(), "{}: line {}: expected a base64 token, a space and a rank, found '{}'", where,
            number, replace_invalid_utf8(line.substr(0, 80)));
    require(token->rank <= kMaximumTokenId, "{}: line {}: expected a rank from 0 to {}, found {}", where,
            number, kMaximumTokenId, token->rank);
    tokens.push_back(std::move(*token));
  });
  require(!tokens.empty(), "{}: expected tokens and ranks, found an empty file", where);
  std::sort(tokens.begin(), tokens.end(),
            [](const RankedToken& a, const RankedToken& b) { return a.rank < b.rank; });

  const KnownRanks known = known_ranks(tokens.size(), where);
  TokenizerParts parts;
  parts.where = where;
  parts.vocabulary.reserve(tokens.size());
  for (const auto& token : tokens) parts.vocabulary.push_back({spell_bytes(token.bytes), token.rank});
  parts.merges = merges_of_ranks(tokens);
  parts.bpe.ignore_merges = true;
  if (known.normalize_nfc) parts.normalizer = R"({"type":"NFC"})";
  parts.pre_tokenizer = byte_level_pretokenizer(known.pattern);
  parts.decoder = kByteLevelDecoder;
  if (config.added.empty()) {
    for (size_t i = 0; i < known.special.size(); ++i) {
      if (!known.special[i].empty()) {
        parts.added.push_back(control_token(static_cast<int32_t>(known.count + i), known.special[i]));
      }
    }
  }
  const auto fill = [](std::optional<std::string>& into, const std::string& token) {
    if (!into && !token.empty()) into = token;
  };
  fill(config.bos_token, known.bos);
  fill(config.eos_token, known.eos);
  fill(config.pad_token, known.pad);
  if (!config.add_bos && known.add_bos) config.add_bos = true;
  if (config.stop_ids.empty()) {
    for (const auto& token : parts.added) {
      if (std::find(known.stop.begin(), known.stop.end(), token.content) != known.stop.end()) {
        config.stop_ids.push_back(token.id);
      }
    }
  }
  return parts;
}

TokenizerParts parse_wordpiece_vocabulary(std::string_view text, const std::string& where,
                                          TokenizerConfig& config) {
  TokenizerParts parts;
  parts.where = where;
  parts.model = TokenizerParts::Model::wordpiece;
  SpecialFrame frame;
  std::optional<int32_t> unk;
  const std::string unk_token = config.unk_token.value_or("[UNK]");
  for_each_line(text, [&](std::string_view line, size_t number) {
    require(number <= static_cast<size_t>(kMaximumTokenId), "{}: expected at most {} tokens", where,
            kMaximumTokenId);
    const auto id = static_cast<int32_t>(number - 1);
    if (const auto invalid = first_invalid_utf8(line)) {
      fail("{}: line {}: invalid UTF-8 at byte {} of the line", where, number, *invalid);
    }
    if (line.empty()) return;
    parts.vocabulary.push_back({std::string(line), id});
    if (line == unk_token) unk = id;
    if (line == "[CLS]") frame.prefix = {id};
    if (line == "[SEP]") frame.suffix = {id};
    for (const char* name : {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}) {
      if (line == name) parts.added.push_back(control_token(id, name));
    }
  });
  require(unk.has_value(), "{}: expected the unknown token '{}' among the lines, found none", where,
          unk_token);
  parts.wordpiece.unk = *unk;
  parts.normalizer = dump_json(Json{{"type", "BertNormalizer"},
                                    {"clean_text", true},
                                    {"handle_chinese_chars", true},
                                    {"strip_accents", nullptr},
                                    {"lowercase", config.do_lower_case}});
  parts.pre_tokenizer = R"({"type":"BertPreTokenizer"})";
  parts.decoder = R"({"type":"WordPiece","prefix":"##","cleanup":true})";
  parts.post_processor = dump_json(make_post_processor(
      frame, [&](int32_t id) { return std::string(frame.prefix == std::vector{id} ? "[CLS]" : "[SEP]"); }));
  return parts;
}

}  // namespace qkv
