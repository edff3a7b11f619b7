// Building the pipeline and running it.
#include "qkv/text/pipeline_tokenizer.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/text/byte_alphabet.h"
#include "qkv/text/post_processor.h"
#include "qkv/text/unicode.h"
#include "qkv/text/word_cache.h"
#include "qkv/text/word_level.h"

namespace qkv {

namespace {

constexpr std::string_view kSpaceMark = "▁";

// Where a mark first follows something else.
size_t end_of_marked_word(std::string_view text) {
  size_t at = 0;
  while (text.substr(at).starts_with(kSpaceMark)) at += kSpaceMark.size();
  return std::min(text.find(kSpaceMark, at), text.size());
}

}  // namespace

// What one call of encode() works with; calls on other threads take others.
struct PipelineTokenizer::Scratch {
  Regex::Scratch regex;
  WordScratch words;
  WordCache cache;
};

PipelineTokenizer::PipelineTokenizer(TokenizerParts parts, const TokenizerConfig& config)
    : parts_(std::move(parts)) {
  const std::string& where = parts_.where;
  normalizer_ = Normalizer(parse_json(parts_.normalizer, where), where);
  pretokenizer_ = Pretokenizer(parse_json(parts_.pre_tokenizer, where), where);
  parts_.bpe.byte_level = parts_.model == TokenizerParts::Model::bpe && pretokenizer_.byte_level();
  if (const Json decoder = parse_json(parts_.decoder, where); !decoder.is_null())
    decoder_ = PieceDecoder(decoder, where);
  join_ = decoder_.join();
  for (const auto& token : config.added) {
    const auto same = [&](const AddedToken& known) {
      return known.id == token.id || known.content == token.content;
    };
    if (std::none_of(parts_.added.begin(), parts_.added.end(), same)) parts_.added.push_back(token);
  }
  build_entries();
  build_model();
  build_matchers();
  set_special_ids(config);
  config_text_ = config.text;
  chat_template_ = config.chat_template;
  named_templates_ = config.named_templates;
}

PipelineTokenizer::~PipelineTokenizer() = default;

void PipelineTokenizer::build_entries() {
  const std::string& where = parts_.where;
  const auto checked = [&](int64_t id, std::string_view token) {
    require(id >= 0 && id <= kMaximumTokenId, "{}: token '{}': expected an id from 0 to {}, found {}", where,
            token, kMaximumTokenId, id);
    return static_cast<int32_t>(id);
  };
  int32_t largest = 0;
  for (const auto& [token, id] : parts_.vocabulary) largest = std::max(largest, checked(id, token));
  for (const auto& token : parts_.added) largest = std::max(largest, checked(token.id, token.content));
  require_dense(largest, parts_.vocabulary.size() + parts_.added.size(), where);
  entries_.reserve(static_cast<size_t>(largest) +
                   1);  // the index points into the entries: they must not move
  for (const auto& [token, id] : parts_.vocabulary) {
    require(id >= vocab_size() || !entries_[id].used, "{}: tokens '{}' and '{}' have the same id {}", where,
            id < vocab_size() ? entries_[id].surface : "", token, id);
    Entry& made = entry(id);
    made.surface = token;
    made.bytes = decoder_.piece(token);
  }
  index_entries();
  for (const auto& [token, id] : parts_.vocabulary) {
    require(token_to_id(token) == id, "{}: token '{}' is listed twice, with ids {} and {}", where, token,
            token_to_id(token).value_or(0), id);
  }
  for (const auto& token : parts_.added) {
    require(!token.content.empty(), "{}: added token {}: expected its content, found an empty string", where,
            token.id);
    const auto known = token_to_id(token.content);
    require(!known || *known == token.id, "{}: added token '{}' has id {}, but id {} in the vocabulary",
            where, token.content, token.id, known.value_or(0));
    require(
        token.id >= vocab_size() || !entries_[token.id].used || entries_[token.id].surface == token.content,
        "{}: tokens '{}' and '{}' have the same id {}", where,
        token.id < vocab_size() ? entries_[token.id].surface : "", token.content, token.id);
    Entry& made = entry(token.id);
    made.surface = token.content;
    made.bytes = decoder_.added_piece(token.content);
    made.special = token.special;
    ids_[made.surface] = token.id;
  }
  require(vocab_size() > 0, "{}: expected a vocabulary, found no tokens", where);
  index_entries();
}

void PipelineTokenizer::build_model() {
  using Model = TokenizerParts::Model;
  switch (parts_.model) {
    case Model::bpe:
      unk_ = parts_.bpe.unk;
      model_ = std::make_unique<BpeModel>(reachable_words(), parts_.merges, parts_.bpe);
      cuts_at_marks_ = merges_stop_at_marks();
      break;
    case Model::wordpiece:
      unk_ = parts_.wordpiece.unk;
      model_ = std::make_unique<WordPieceModel>(all_words(), parts_.wordpiece);
      break;
    case Model::unigram:
      unk_ = parts_.unigram.unk;
      model_ = make_unigram();
      break;
    case Model::wordlevel:
      unk_ = token_to_id(parts_.wordlevel_unk_token);
      model_ = std::make_unique<WordLevelModel>(all_words(), unk_, parts_.where);
      break;
  }
}

// True if a mark that follows something else is never merged with it, so that the text may be cut there: a
// whole text (Llama has no pre-tokenizer) becomes words that the cache knows.
bool PipelineTokenizer::merges_stop_at_marks() const {
  const BpeOptions& bpe = parts_.bpe;
  if (bpe.byte_level || bpe.ignore_merges || !bpe.continuing_subword_prefix.empty() ||
      !bpe.end_of_word_suffix.empty() || !token_to_id(kSpaceMark)) {
    return false;
  }
  return std::all_of(parts_.merges.begin(), parts_.merges.end(), [&](const BpeMerge& merge) {
    const std::string& token = entries_[merge.result].surface;
    return end_of_marked_word(token) == token.size();
  });
}

Vocabulary PipelineTokenizer::all_words() const {
  Vocabulary words;
  words.reserve(parts_.vocabulary.size());
  for (const auto& [token, id] : parts_.vocabulary) words.emplace(token, id);
  return words;
}

// What a word may read like to become a token. The spelling of a control token in a text that is not to be
// parsed must not become one by another way.
Vocabulary PipelineTokenizer::reachable_words() const {
  Vocabulary words;
  words.reserve(parts_.vocabulary.size());
  for (const auto& [token, id] : parts_.vocabulary) {
    if (entries_[id].special && id != parts_.bpe.unk) continue;
    if (!parts_.bpe.byte_level) {
      words.emplace(token, id);
    } else if (auto bytes = unspell_bytes(token)) {
      words.emplace(std::move(*bytes), id);
    }
  }
  return words;
}

std::unique_ptr<WordModel> PipelineTokenizer::make_unigram() const {
  const UnigramOptions& options = parts_.unigram;
  std::array<int32_t, 256> byte_ids;
  byte_ids.fill(-1);
  std::vector<UnigramModel::Token> tokens;
  tokens.reserve(parts_.vocabulary.size());
  double lowest = std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < parts_.vocabulary.size(); ++i) {
    const auto& [token, id] = parts_.vocabulary[i];
    lowest = std::min(lowest, options.scores[i]);
    if (const auto byte = options.byte_fallback ? byte_of_token(token) : std::nullopt) {
      byte_ids[*byte] = id;
    } else if (!entries_[id].special && id != options.unk) {
      tokens.push_back({token, id, options.scores[i]});
    }
  }
  return std::make_unique<UnigramModel>(tokens, lowest, options.unk, byte_ids, parts_.where);
}

void PipelineTokenizer::build_matchers() {
  Regex::Scratch scratch;
  for (const auto& token : parts_.added) {
    if (!token.normalized || normalizer_.empty()) {
      raw_matcher_.add(token, token.content);
    } else {
      normalized_matcher_.add(token, normalizer_.apply(token.content, scratch));
    }
  }
  raw_matcher_.build();
  normalized_matcher_.build();
}

void PipelineTokenizer::set_special_ids(const TokenizerConfig& config) {
  const auto look_up = [&](const std::optional<std::string>& token) {
    return token ? token_to_id(*token) : std::nullopt;
  };
  // Names that vocabularies without a configuration use.
  const auto first_special = [&](std::initializer_list<const char*> names) -> std::optional<int32_t> {
    for (const char* name : names) {
      if (const auto id = token_to_id(name); id && is_special(*id)) return id;
    }
    return std::nullopt;
  };
  const auto valid = [&](std::optional<int32_t> id) { return id && *id < vocab_size() ? id : std::nullopt; };
  bos_ = look_up(config.bos_token);
  eos_ = look_up(config.eos_token);
  pad_ = look_up(config.pad_token);
  if (const auto id = look_up(config.unk_token); id && !unk_) unk_ = id;
  if (!bos_) bos_ = valid(config.bos_id);
  if (!eos_) eos_ = valid(config.eos_id);
  if (!pad_) pad_ = valid(config.pad_id);
  if (config.text.empty() && !config.bos_token && !config.eos_token && !config.eos_id) {
    if (!bos_) bos_ = first_special({"<|begin_of_text|>", "<s>", "<bos>", "[CLS]"});
    if (!eos_) eos_ = first_special({"<|end_of_text|>", "<|endoftext|>", "</s>", "<eos>", "[SEP]"});
    if (!pad_) pad_ = first_special({"<|finetune_right_pad_id|>", "<pad>", "[PAD]", "<|padding|>"});
  }
  if (eos_) stop_.push_back(*eos_);
  for (const int32_t id : config.stop_ids) {
    if (valid(id) && std::find(stop_.begin(), stop_.end(), id) == stop_.end()) stop_.push_back(id);
  }

  const std::string& where = parts_.where;
  SpecialFrame frame = parse_post_processor(parse_json(parts_.post_processor, where), where);
  for (const auto* list : {&frame.prefix, &frame.suffix}) {
    for (const int32_t id : *list) require_in_vocabulary(id, where + ": post_processor: special token");
  }
  const bool begins = bos_ && !frame.prefix.empty() && frame.prefix.front() == *bos_;
  const bool ends = eos_ && !frame.suffix.empty() && frame.suffix.back() == *eos_;
  // Hugging Face rebuilds the post-processor from these two keys for Llama tokenizers; elsewhere they only
  // add.
  const bool rebuilds = config.tokenizer_class.starts_with("Llama");
  bool changed = false;
  if (bos_ && config.add_bos && *config.add_bos != begins && (*config.add_bos || rebuilds)) {
    if (begins) {
      frame.prefix.erase(frame.prefix.begin());
    } else {
      frame.prefix.insert(frame.prefix.begin(), *bos_);
    }
    changed = true;
  }
  if (eos_ && config.add_eos && *config.add_eos != ends && (*config.add_eos || rebuilds)) {
    if (ends) {
      frame.suffix.pop_back();
    } else {
      frame.suffix.push_back(*eos_);
    }
    changed = true;
  }
  if (changed) {
    parts_.post_processor =
        dump_json(make_post_processor(frame, [&](int32_t id) { return id_to_token(id); }));
  }
  prefix_ = std::move(frame.prefix);
  suffix_ = std::move(frame.suffix);
}

void PipelineTokenizer::encode_word(std::string_view word, Scratch& scratch,
                                    std::vector<int32_t>& ids) const {
  const size_t hash = WordCache::hash(word);
  if (scratch.cache.find(word, hash, ids)) return;
  const size_t before = ids.size();
  model_->encode_word(word, scratch.words, ids);
  scratch.cache.keep(word, hash, ids.data() + before, ids.size() - before);
}

void PipelineTokenizer::encode_words(std::string_view text, bool at_start, Scratch& scratch,
                                     std::vector<int32_t>& ids) const {
  pretokenizer_.split(text, at_start, scratch.regex, [&](std::string_view word) {
    if (cuts_at_marks_) {
      for (size_t end; (end = end_of_marked_word(word)) < word.size(); word.remove_prefix(end))
        encode_word(word.substr(0, end), scratch, ids);
    }
    encode_word(word, scratch, ids);
  });
}

void PipelineTokenizer::encode_text(std::string_view text, const EncodeOptions& options,
                                    std::vector<int32_t>& ids) const {
  const ScratchPool<Scratch>::Lease lease(scratch_);
  Scratch& scratch = *lease;
  bool at_start = true;
  const auto encode_part = [&](std::string_view part, std::optional<int32_t> id) {
    if (id) {
      ids.push_back(*id);
    } else {
      encode_words(part, at_start, scratch, ids);
    }
    at_start = false;
  };
  // Normalizing moves bytes, so a run that is plain anywhere is plain as a whole to tokens of normalized
  // text.
  const auto parses = [&](std::string_view run) {
    const auto begin = static_cast<size_t>(run.data() - text.data());
    return options.parse_special && !overlaps(options.plain, begin, begin + run.size());
  };
  const SpecialRule rule{options.parse_special, options.plain};
  raw_matcher_.split(text, rule, [&](std::string_view raw, std::optional<int32_t> raw_id) {
    if (raw_id) return encode_part(raw, raw_id);
    for_each_utf8_run(raw, [&](std::string_view run, bool valid) {
      if (!valid) {
        // Nothing but the vocabulary's bytes can stand for it.
        if (normalizer_.spells_bytes()) {
          model_->encode_word(spell_bytes(run), scratch.words, ids);
        } else {
          model_->encode_word(run, scratch.words, ids);
        }
        at_start = false;
      } else if (normalizer_.leaves_unchanged(run)) {
        normalized_matcher_.split(run, {parses(run), {}}, encode_part);
      } else {
        const std::string normalized = normalizer_.apply(run, scratch.regex);
        normalized_matcher_.split(normalized, {parses(run), {}}, encode_part);
      }
    });
  });
}

bool PipelineTokenizer::lossless() const {
  if (!parts_.bpe.byte_level || !normalizer_.empty() || !pretokenizer_.keeps_text() ||
      !decoder_.spells_bytes())
    return false;
  return std::all_of(byte_characters().begin(), byte_characters().end(),
                     [&](const std::string& character) { return token_to_id(character).has_value(); });
}

}  // namespace qkv
