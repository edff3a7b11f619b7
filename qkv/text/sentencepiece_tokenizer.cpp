// libsentencepiece behind Tokenizer.
#include "qkv/text/sentencepiece_tokenizer.h"

#include <sentencepiece_processor.h>

#include <algorithm>

#include "qkv/core/error.h"
#include "qkv/text/byte_alphabet.h"
#include "qkv/text/charsmap.h"
#include "qkv/text/pipeline_tokenizer.h"
#include "qkv/text/sentencepiece_parts.h"
#include "qkv/text/unicode.h"

namespace qkv {
namespace {

constexpr std::string_view kSpaceMark = "▁";

std::string with_spaces(std::string_view piece) {
  std::string out;
  for (size_t i = 0; i < piece.size();) {
    if (piece.substr(i).starts_with(kSpaceMark)) {
      out += ' ';
      i += kSpaceMark.size();
    } else {
      out += piece[i++];
    }
  }
  return out;
}

// True if the piece goes on behind a space that follows a word ("of▁the").
bool spans_words(std::string_view piece) {
  while (piece.starts_with(kSpaceMark)) piece.remove_prefix(kSpaceMark.size());
  return piece.find(kSpaceMark) != std::string_view::npos;
}

bool is_ascii_letter_or_digit(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

std::unique_ptr<sentencepiece::SentencePieceProcessor> make_processor(const std::string& model,
                                                                      const std::string& where) {
  auto processor = std::make_unique<sentencepiece::SentencePieceProcessor>();
  const auto status = processor->LoadFromSerializedProto(model);
  require(status.ok(), "{}: SentencePiece refuses the model: {}", where, status.ToString());
  return processor;
}

}  // namespace

SentencePieceTokenizer::SentencePieceTokenizer(std::string model, const std::string& where,
                                               const TokenizerConfig& config)
    : model_(std::move(model)),
      proto_(parse_sentencepiece_proto(model_, where)),
      prefix_every_part_(config.legacy) {
  for (size_t i = 0; i < proto_.pieces.size(); ++i) {  // the library's tries end the program at such a byte
    require(proto_.pieces[i].text.find('\0') == std::string::npos,
            "{}: piece {}: expected text without zero bytes, found one", where, i);
  }
  if (!proto_.charsmap.empty()) Charsmap(proto_.charsmap, where);  // the library walks it without looking
  processor_ = make_processor(model_, where);
  join_.strips_leading_space = proto_.add_dummy_prefix || proto_.remove_extra_whitespaces;
  build_entries(config, where);
  set_special_ids(config);
  const auto no_piece = [&](auto&& spans) {
    return std::none_of(proto_.pieces.begin(), proto_.pieces.end(),
                        [&](const Piece& piece) { return spans(piece.text); });
  };
  // Unknown characters on both sides of a cut would be one unknown token, but for what is known between them.
  const auto is_known = [&](const char* text) {
    return proto_.byte_fallback || !processor_->IsUnknown(processor_->PieceToId(text));
  };
  words_are_independent_ = proto_.add_dummy_prefix && is_known("▁") && no_piece(&spans_words) &&
                           (proto_.algorithm == SentencePieceProto::Algorithm::bpe ||
                            proto_.algorithm == SentencePieceProto::Algorithm::unigram);
  lines_are_independent_ =
      words_are_independent_ && is_known("\n") && proto_.charsmap.empty() &&
      !proto_.remove_extra_whitespaces &&
      no_piece([](std::string_view text) { return text.size() > 1 && text.find('\n') != text.npos; });
  config_text_ = config.text;
  chat_template_ = config.chat_template;
  named_templates_ = config.named_templates;
}

SentencePieceTokenizer::~SentencePieceTokenizer() = default;

void SentencePieceTokenizer::build_entries(const TokenizerConfig& config, const std::string& where) {
  std::fill(std::begin(byte_ids_), std::end(byte_ids_), -1);
  const auto match = [&](int32_t id, const std::string& content) {
    AddedToken token;
    for (const AddedToken& configured : config.added) {
      if (configured.id == id && configured.content == content) token = configured;
    }
    token.id = id;
    token.content = content;
    token.special = true;
    matcher_.add(token, content);
    if (token.lstrip || token.rstrip || token.single_word) added_.push_back(token);
  };
  const auto count = static_cast<int32_t>(proto_.pieces.size());
  require(count <= kMaximumTokenId, "{}: expected at most {} pieces, found {}", where, kMaximumTokenId,
          count);
  for (int32_t id = 0; id < count; ++id) {
    const Piece& piece = proto_.pieces[id];
    Entry& made = entry(id);
    made.surface = piece.text;
    switch (piece.type) {
      case PieceType::byte: {
        const auto byte = byte_of_token(piece.text);
        require(byte.has_value(), "{}: byte piece {}: expected a name like <0x0A>, found '{}'", where, id,
                piece.text);
        made.bytes = std::string(1, static_cast<char>(*byte));
        byte_ids_[*byte] = id;
        break;
      }
      case PieceType::control:
        made.bytes = piece.text;
        made.special = true;
        match(id, piece.text);
        break;
      case PieceType::unknown:
        made.bytes = proto_.unk_surface;
        match(id, piece.text);
        break;
      default:
        made.bytes = with_spaces(piece.text);
    }
  }
  for (const AddedToken& token : config.added) {
    require(token.id >= 0 && token.id <= kMaximumTokenId,
            "{}: added token '{}': expected an id from 0 to {}, found {}", where, token.content,
            kMaximumTokenId, token.id);
    require_dense(token.id, proto_.pieces.size() + config.added.size(), where);
    const bool known = token.id < count && proto_.pieces[token.id].text == token.content;
    const PieceType type = known ? proto_.pieces[token.id].type : PieceType::normal;
    if (type == PieceType::control || type == PieceType::unknown || type == PieceType::byte) {
      entries_[token.id].special |= token.special && type != PieceType::byte;
      continue;
    }
    added_.push_back(token);
    Entry& made = entry(token.id);
    made.surface = token.content;
    if (!known) made.bytes = token.content;
    made.special = token.special;
    matcher_.add(token, token.content);
  }
  matcher_.build();
  index_entries();
}

void SentencePieceTokenizer::set_special_ids(const TokenizerConfig& config) {
  const auto choose = [&](const std::optional<std::string>& token, std::optional<int32_t> configured,
                          int64_t own) -> std::optional<int32_t> {
    if (token) {
      if (const auto id = token_to_id(*token)) return id;
    }
    if (configured && *configured < vocab_size()) return configured;
    if (own >= 0 && own < static_cast<int64_t>(proto_.pieces.size())) return static_cast<int32_t>(own);
    return std::nullopt;
  };
  // The library looks at the pieces' names, not only at the numbers in the file.
  bos_ = choose(config.bos_token, config.bos_id, processor_->bos_id());
  eos_ = choose(config.eos_token, config.eos_id, processor_->eos_id());
  pad_ = choose(config.pad_token, config.pad_id, processor_->pad_id());
  unk_ = choose(config.unk_token, std::nullopt, processor_->unk_id());
  if (eos_) stop_.push_back(*eos_);
  for (const int32_t id : config.stop_ids) {
    if (id < vocab_size() && std::find(stop_.begin(), stop_.end(), id) == stop_.end()) stop_.push_back(id);
  }
  // Where no configuration says otherwise: T5 ends its texts, everything else with a BOS begins them.
  const bool t5 = config.tokenizer_class.starts_with("T5");
  if (bos_ && config.add_bos.value_or(!t5)) prefix_ = {*bos_};
  if (eos_ && config.add_eos.value_or(t5)) suffix_ = {*eos_};
}

std::string_view SentencePieceTokenizer::kind() const {
  switch (proto_.algorithm) {
    case SentencePieceProto::Algorithm::unigram:
      return "sentencepiece-unigram";
    case SentencePieceProto::Algorithm::bpe:
      return "sentencepiece-bpe";
    case SentencePieceProto::Algorithm::word:
      return "sentencepiece-word";
    case SentencePieceProto::Algorithm::character:
      return "sentencepiece-char";
  }
  return "sentencepiece";
}

const sentencepiece::SentencePieceProcessor& SentencePieceTokenizer::continuing_processor() const {
  if (!proto_.add_dummy_prefix) return *processor_;
  std::call_once(continuing_once_, [&] {
    continuing_ = make_processor(model_ + std::string(without_dummy_prefix()), "SentencePiece model");
  });
  return *continuing_;
}

// Where the first word of `run` ends: at a line feed, or before a single space between two words. No piece
// spans such a place, so encoding the parts apart gives the same ids; and " word" reads like "word" with the
// dummy prefix.
size_t SentencePieceTokenizer::word_end(std::string_view run) const {
  if (!words_are_independent_) return run.size();
  if (lines_are_independent_ && run[0] == '\n') return 1;
  for (size_t i = 1; i < run.size(); ++i) {
    if (run[i] == '\n' && lines_are_independent_) return i;
    if (run[i] != ' ' || i + 1 == run.size()) continue;
    const char before = run[i - 1], after = run[i + 1];
    // Rules of the normalizer may join or drop other characters around a space.
    const bool plain = !proto_.charsmap.empty() || proto_.remove_extra_whitespaces
                           ? is_ascii_letter_or_digit(before) && is_ascii_letter_or_digit(after)
                           : before != ' ' && after != ' ' && !run.substr(0, i).ends_with(kSpaceMark) &&
                                 !run.substr(i + 1).starts_with(kSpaceMark);
    if (plain) return i;
  }
  return run.size();
}

void SentencePieceTokenizer::encode_run(std::string_view run, bool at_start, Caches& caches,
                                        std::vector<int32_t>& ids) const {
  std::vector<int> word_ids;
  while (!run.empty()) {
    const std::string_view word = run.substr(0, word_end(run));
    run.remove_prefix(word.size());
    WordCache& cache = at_start ? caches.prefixed : caches.continuing;
    const size_t hash = WordCache::hash(word);
    if (!cache.find(word, hash, ids)) {
      const auto& processor = at_start ? *processor_ : continuing_processor();
      const auto status = processor.Encode({word.data(), word.size()}, &word_ids);
      require(status.ok(), "SentencePiece cannot encode a text of {} bytes: {}", word.size(),
              status.ToString());
      cache.keep(word, hash, word_ids.data(), word_ids.size());
      ids.insert(ids.end(), word_ids.begin(), word_ids.end());
    }
    // A single space between words becomes the next one's dummy prefix; around a line feed everything stays.
    at_start = !run.empty() && run[0] == ' ' && word.back() != '\n';
    if (at_start) run.remove_prefix(1);
  }
}

void SentencePieceTokenizer::encode_text(std::string_view text, const EncodeOptions& options,
                                         std::vector<int32_t>& ids) const {
  const ScratchPool<Caches>::Lease caches(caches_);
  bool at_start = true;
  matcher_.split(text, {options.parse_special, options.plain},
                 [&](std::string_view part, std::optional<int32_t> id) {
                   if (id) {
                     ids.push_back(*id);
                     at_start = prefix_every_part_;
                     return;
                   }
                   for_each_utf8_run(part, [&](std::string_view run, bool valid) {
                     if (!valid && byte_ids_[static_cast<uint8_t>(run[0])] >= 0) {
                       for (const char byte : run) ids.push_back(byte_ids_[static_cast<uint8_t>(byte)]);
                     } else {
                       encode_run(run, at_start, *caches, ids);
                     }
                     at_start = false;
                   });
                 });
}

bool SentencePieceTokenizer::has_json() const {
  return !tokenizer_json_obstacle(proto_);
}

std::string SentencePieceTokenizer::to_json() const {
  return write_tokenizer_json(sentencepiece_parts(*this));
}

}  // namespace qkv
