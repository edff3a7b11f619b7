// Counting, merging, and the tokenizer that comes of it.
#include "qkv/text/bpe_trainer.h"

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/core/interrupt.h"
#include "qkv/core/json.h"
#include "qkv/core/log.h"
#include "qkv/core/progress.h"
#include "qkv/core/utf8.h"
#include "qkv/text/bpe_merger.h"
#include "qkv/text/byte_alphabet.h"
#include "qkv/text/patterns.h"
#include "qkv/text/pipeline_tokenizer.h"

namespace qkv {
namespace {

constexpr int32_t kBytes = 256;
constexpr char kWhere[] = "BPE training";

void check(const BpeTrainerOptions& options) {
  const auto& special = options.special_tokens;
  const int64_t least = kBytes + static_cast<int64_t>(special.size());
  require(options.vocab_size >= least && options.vocab_size <= kMaximumTokenId,
          "{}: vocab_size: expected from {} (256 bytes and {} special tokens) to {}, found {}", kWhere, least,
          special.size(), kMaximumTokenId, options.vocab_size);
  require(options.min_frequency >= 1, "{}: min_frequency: expected at least 1, found {}", kWhere,
          options.min_frequency);
  require(options.max_token_length >= 0 && options.max_token_length != 1,
          "{}: max_token_length: expected 0 (no limit) or at least 2, found {}", kWhere,
          options.max_token_length);
  for (auto token = special.begin(); token != special.end(); ++token) {
    require(!token->empty() && !first_invalid_utf8(*token), "{}: special token {}: expected non-empty UTF-8",
            kWhere, token - special.begin());
    require(std::find(special.begin(), token, *token) == token, "{}: special token '{}' is listed twice",
            kWhere, *token);
    require(token->size() > 1, "{}: special token '{}': expected more than one byte", kWhere, *token);
  }
  const auto check_named = [&](const std::string& token, const char* what) {
    require(token.empty() || std::find(special.begin(), special.end(), token) != special.end(),
            "{}: {}: expected one of the special tokens, found '{}'", kWhere, what, token);
  };
  check_named(options.bos_token, "bos_token");
  check_named(options.eos_token.value_or(""), "eos_token");
  check_named(options.pad_token, "pad_token");
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::vector<AddedToken> control_tokens(const std::vector<std::string>& contents, int32_t first_id) {
  std::vector<AddedToken> tokens;
  for (const auto& content : contents) {
    AddedToken token;
    token.id = first_id + static_cast<int32_t>(tokens.size());
    token.content = content;
    token.special = true;
    tokens.push_back(std::move(token));
  }
  return tokens;
}

std::unique_ptr<Tokenizer> make_tokenizer(const BpeMerger& merger, const BpeTrainerOptions& options,
                                          std::string pretokenizer) {
  TokenizerParts parts;
  parts.where = "trained tokenizer";
  const auto count = static_cast<int32_t>(merger.tokens().size());
  for (int32_t id = 0; id < count; ++id) parts.vocabulary.push_back({spell_bytes(merger.tokens()[id]), id});
  parts.merges = merger.merges();
  parts.added = control_tokens(options.special_tokens, count);
  parts.pre_tokenizer = std::move(pretokenizer);
  parts.decoder = R"({"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true})";
  TokenizerConfig config;
  const auto named = [](const std::string& token) {
    return token.empty() ? std::nullopt : std::optional(token);
  };
  config.bos_token = named(options.bos_token);
  config.pad_token = named(options.pad_token);
  const std::string first = options.special_tokens.empty() ? "" : options.special_tokens.front();
  config.eos_token = named(options.eos_token.value_or(first));
  config.text = "{}";  // no guessing: what is not named is not there
  return std::make_unique<PipelineTokenizer>(std::move(parts), config);
}

std::unique_ptr<Tokenizer> train(const BpeTrainerOptions& options, BpeTrainingReport* report,
                                 FunctionRef<std::vector<WordCount>(const WordCounter&)> count) {
  check(options);
  const std::string pretokenizer_json = byte_level_pretokenizer(pattern_by_name(options.pattern));
  const Pretokenizer pretokenizer(parse_json(pretokenizer_json, kWhere), kWhere);
  AddedTokenMatcher special;
  for (const auto& token : control_tokens(options.special_tokens, 0)) special.add(token, token.content);
  special.build();

  BpeTrainingReport made;
  const auto counting = std::chrono::steady_clock::now();
  std::vector<WordCount> words = count({pretokenizer, special});
  made.count_seconds = seconds_since(counting);
  made.distinct_words = static_cast<int64_t>(words.size());
  for (const auto& word : words) made.words += word.count;
  require(!words.empty(), "{}: expected text to learn from, found none", kWhere);

  const auto merging = std::chrono::steady_clock::now();
  BpeMerger merger(words, options.min_frequency, options.max_token_length);
  words = {};
  const size_t wanted = static_cast<size_t>(options.vocab_size) - options.special_tokens.size();
  {
    Progress progress("merging", wanted, "tokens");
    while (merger.tokens().size() < wanted && merger.merge_once()) {
      progress.update(merger.tokens().size());
      stop_if_interrupted();
    }
  }
  made.merge_seconds = seconds_since(merging);
  made.merges = static_cast<int64_t>(merger.merges().size());
  made.reached_vocab_size = merger.tokens().size() == wanted;
  if (!made.reached_vocab_size) {
    log_warning(
        "{}: the corpus holds pairs for a vocabulary of {} only (asked for {}, at least {} occurrences each)",
        kWhere, merger.tokens().size() + options.special_tokens.size(), options.vocab_size,
        options.min_frequency);
  }
  if (report) *report = made;
  return make_tokenizer(merger, options, pretokenizer_json);
}

}  // namespace

std::unique_ptr<Tokenizer> train_bpe(std::span<const std::string> paths, const BpeTrainerOptions& options,
                                     BpeTrainingReport* report) {
  return train(options, report, [&](const WordCounter& counter) { return counter.count_files(paths); });
}

std::unique_ptr<Tokenizer> train_bpe(const DocumentSource& next_document, const BpeTrainerOptions& options,
                                     BpeTrainingReport* report) {
  return train(options, report,
               [&](const WordCounter& counter) { return counter.count_documents(next_document); });
}

}  // namespace qkv
