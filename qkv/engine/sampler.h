// From logits to the next token: the chain of filters that every text generator knows, and a seeded draw.
//
// What is forbidden or biased comes first, then the stages in SamplerOptions::order. The default order is
// that of the Hugging Face logits processors; llama_cpp_order() is llama.cpp's. Each stage names its paper in
// samplers/.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "qkv/engine/samplers/candidates.h"

namespace qkv {

enum class SamplerStage : uint8_t {
  penalties,  // repetition, presence, frequency, repeated n-grams
  dry,
  temperature,
  top_k,
  top_p,
  min_p,
  typical_p,
  epsilon,
  eta,
  top_n_sigma,
  xtc,
};
// "penalties", "dry", "temperature", "top_k", "top_p", ...
std::string_view sampler_stage_name(SamplerStage stage);
// Names separated by ';' or ','. Error for an unknown or repeated one, with the list of those there are.
std::vector<SamplerStage> parse_sampler_order(std::string_view names);
std::vector<SamplerStage> default_sampler_order();
// Temperature last: filters see the model's own distribution.
std::vector<SamplerStage> llama_cpp_order();

struct SamplerOptions {
  // 0: the likeliest token, always (greedy): of the stages only penalties and dry still count.
  float temperature = 1;
  // Dynamic temperature: from temperature - range to temperature + range, the more the surer the model is
  // not.
  float temperature_range = 0;
  float temperature_exponent = 1;
  int32_t top_k = 0;  // keep the k likeliest tokens, and those as likely as the k-th; 0: all
  float top_p = 1;    // keep the likeliest tokens until their probability reaches this; 1: all
  float min_p = 0;    // keep tokens at least this times as likely as the likeliest; 0: all
  float repetition_penalty =
      1;  // logits of tokens seen before are divided (if positive) or multiplied by it; 1: none
  // How many of the latest tokens count as seen by the three penalties; 0: all, the prompt included.
  int32_t repetition_window = 0;
  int32_t min_keep = 1;  // every filter but top_k and xtc leaves at least this many tokens
  uint64_t seed = 0;
  float presence_penalty = 0;   // taken from the logit of every token seen
  float frequency_penalty = 0;  // the same, times how often it was seen
  int32_t no_repeat_ngram = 0;  // no n tokens in a row twice; 0: allowed
  float typical_p = 1;          // keep the most typical tokens until their probability reaches this; 1: all
  float epsilon = 0;            // drop tokens less likely than this; 0: none
  float eta = 0;                // the same, less strict where the distribution is flat; 0: none
  float top_n_sigma = 0;        // keep logits within so many standard deviations of the largest; 0: all
  float xtc_probability = 0;    // how often xtc excludes top choices; 0: never
  float xtc_threshold = 0.1f;   // what is at least this likely is a top choice
  int mirostat = 0;  // 1 or 2: instead of all filters, hold the surprise at mirostat_tau bits; 0: no
  float mirostat_tau = 5;
  float mirostat_eta = 0.1f;  // how fast
  float dry_multiplier = 0;   // strength of the penalty on continuing a repetition; 0: none
  float dry_base = 1.75f;
  int32_t dry_allowed_length = 2;          // repetitions up to this length are free
  int32_t dry_window = 0;                  // of the latest tokens; 0: all
  std::vector<int32_t> dry_breakers = {};  // tokens that no repetition reaches across; ascending
  std::vector<std::pair<int32_t, float>> logit_bias = {};  // added; -infinity forbids
  std::vector<std::vector<int32_t>> bad_words = {};        // sequences of tokens that are never completed
  std::vector<SamplerStage> order = default_sampler_order();
};

// Error naming the option, what was expected and what was found.
void check(const SamplerOptions& options);

// The sampler of one sequence. Without mirostat, which token is drawn is a pure function of logits, history,
// seed and step; mirostat remembers how surprising its tokens have been.
class Sampler {
 public:
  // Throws Error for impossible options.
  explicit Sampler(const SamplerOptions& options);
  const SamplerOptions& options() const { return options_; }
  // All that it remembers: mirostat's limit, in bits.
  float surprise_limit() const { return surprise_limit_; }
  void set_surprise_limit(float bits) { surprise_limit_ = bits; }

  // The chain, in place: what is filtered out becomes -infinity. `history`: all tokens so far; `step` decides
  // what xtc does.
  void filter(std::span<float> logits, std::span<const int32_t> history, uint64_t step = 0);
  // filter(), then the draw number `step` of this seed. nullopt if no logit is a finite number, or one is
  // NaN. What is left in `logits` is unspecified.
  std::optional<int32_t> sample(std::span<float> logits, std::span<const int32_t> history, uint64_t step);

 private:
  bool greedy() const { return options_.temperature == 0; }
  // What works on all logits: bias, forbidden words, and the stages penalties and dry.
  void adjust(std::span<float> logits, std::span<const int32_t> history);
  // All other stages.
  void truncate(uint64_t step);
  void limit_surprise();  // mirostat

  SamplerOptions options_;
  Candidates candidates_;
  float surprise_limit_;  // mirostat's mu, bits
};

// The id of the largest logit, the lowest of equals. nullopt if none is finite or one is NaN.
std::optional<int32_t> likeliest(std::span<const float> logits);
// log softmax(logits)[id].
float log_probability(std::span<const float> logits, int32_t id);

struct TokenLogprob {
  int32_t token = 0;
  float logprob = 0;
};
// The n likeliest tokens with log softmax(logits), likeliest first, the lower id first of equals.
std::vector<TokenLogprob> top_logprobs(std::span<const float> logits, int n);

}  // namespace qkv
