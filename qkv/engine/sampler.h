// From logits to the next token: the chain of filters that every text generator knows, and a seeded draw.
//
// Order and meaning are those of the Hugging Face logits processors: repetition penalty (Keskar et al., arXiv
// 1909.05858), temperature, top-k (Fan et al., arXiv 1805.04833), top-p (Holtzman et al., arXiv 1904.09751),
// min-p (Nguyen et al., arXiv 2407.01082).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace qkv {

struct SamplerOptions {
  float temperature =
      1;              // 0: the likeliest token, always (greedy); top_k, top_p and min_p then change nothing
  int32_t top_k = 0;  // keep the k likeliest tokens, and those as likely as the k-th; 0: all
  float top_p = 1;    // keep the likeliest tokens until their probability reaches this; 1: all
  float min_p = 0;    // keep tokens at least this times as likely as the likeliest; 0: all
  float repetition_penalty =
      1;  // logits of tokens seen before are divided (if positive) or multiplied by it; 1: none
  int32_t repetition_window = 0;  // how many of the latest tokens count as seen; 0: all, the prompt included
  int32_t min_keep = 1;           // top_p and min_p leave at least this many tokens
  uint64_t seed = 0;
};

// Error naming the option, what was expected and what was found.
void check(const SamplerOptions& options);

// The sampler of one sequence. Which token is drawn is a pure function of logits, history, seed and step.
class Sampler {
 public:
  // Throws Error for impossible options.
  explicit Sampler(const SamplerOptions& options);
  const SamplerOptions& options() const { return options_; }

  // The chain, in place: what is filtered out becomes -infinity. `history`: all tokens so far. With
  // temperature 0 only the penalty is applied.
  void filter(std::span<float> logits, std::span<const int32_t> history);
  // filter(), then the draw number `step` of this seed. nullopt if no logit is a finite number, or one is
  // NaN.
  std::optional<int32_t> sample(std::span<float> logits, std::span<const int32_t> history, uint64_t step);

 private:
  void penalize(std::span<float> logits, std::span<const int32_t> history);
  void keep_top_k(std::span<float> logits);
  void keep_top_p(std::span<float> logits);
  void keep_min_p(std::span<float> logits) const;

  SamplerOptions options_;
  std::vector<int32_t> seen_;                          // scratch
  std::vector<float> values_;                          // scratch
  std::vector<std::pair<float, int32_t>> candidates_;  // scratch: logit, id
};

// The id of the largest logit, the lowest of equals. nullopt if none is finite or one is NaN.
std::optional<int32_t> likeliest(std::span<const float> logits);
// log softmax(logits)[id].
float log_probability(std::span<const float> logits, int32_t id);

}  // namespace qkv
