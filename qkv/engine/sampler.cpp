#include "qkv/engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "qkv/core/error.h"
#include "qkv/core/rng.h"

namespace qkv {
namespace {

constexpr float kFiltered = -std::numeric_limits<float>::infinity();
// The draws of generation are a stream of their own, so that a seed shared with training does not correlate
// with it.
constexpr uint64_t kSamplingStream = 0x73616D706C65ULL;

void check_range(const char* name, double value, double low, double high) {
  require(value >= low && value <= high, "{}: expected a number from {} to {}, found {}", name, low, high,
          value);
}

float largest(std::span<const float> logits) {
  return *std::max_element(logits.begin(), logits.end());
}

}  // namespace

void check(const SamplerOptions& options) {
  check_range("temperature", options.temperature, 0, 100);
  require(options.top_k >= 0, "top-k: expected 0 (all tokens) or more, found {}", options.top_k);
  require(options.top_p > 0 && options.top_p <= 1, "top-p: expected a number above 0, at most 1, found {}",
          options.top_p);
  check_range("min-p", options.min_p, 0, 1);
  require(options.repetition_penalty > 0 && options.repetition_penalty <= 100,
          "repetition penalty: expected a number above 0, at most 100 (1 is none), found {}",
          options.repetition_penalty);
  require(options.repetition_window >= 0, "repetition window: expected 0 (all tokens) or more, found {}",
          options.repetition_window);
  require(options.min_keep >= 1, "tokens to keep: expected at least 1, found {}", options.min_keep);
}

Sampler::Sampler(const SamplerOptions& options) : options_(options) {
  check(options);
}

void Sampler::filter(std::span<float> logits, std::span<const int32_t> history) {
  if (logits.empty()) return;
  if (options_.repetition_penalty != 1) penalize(logits, history);
  if (options_.temperature == 0) return;
  if (options_.temperature != 1) {
    for (float& logit : logits) logit /= options_.temperature;
  }
  if (options_.top_k > 0 && static_cast<size_t>(options_.top_k) < logits.size()) keep_top_k(logits);
  if (options_.top_p < 1) keep_top_p(logits);
  if (options_.min_p > 0) keep_min_p(logits);
}

std::optional<int32_t> Sampler::sample(std::span<float> logits, std::span<const int32_t> history,
                                       uint64_t step) {
  filter(logits, history);
  const std::optional<int32_t> best = likeliest(logits);
  if (!best || options_.temperature == 0) return best;

  // Inverse of the cumulative distribution in order of ids: near-ties that float noise swaps do not move the
  // draw.
  const float top = logits[static_cast<size_t>(*best)];
  double total = 0;
  for (const float logit : logits) {
    if (logit != kFiltered) total += std::exp(static_cast<double>(logit - top));
  }
  Rng rng(options_.seed, kSamplingStream);
  rng.set_position(2 * step);
  const double target = rng.uniform_double() * total;
  double sum = 0;
  int32_t last = *best;
  for (size_t id = 0; id < logits.size(); ++id) {
    if (logits[id] == kFiltered) continue;
    sum += std::exp(static_cast<double>(logits[id] - top));
    last = static_cast<int32_t>(id);
    if (sum > target) break;
  }
  return last;
}

void Sampler::penalize(std::span<float> logits, std::span<const int32_t> history) {
  const auto window = static_cast<size_t>(options_.repetition_window);
  if (window > 0 && history.size() > window) history = history.last(window);
  seen_.assign(history.begin(), history.end());
  std::sort(seen_.begin(), seen_.end());
  seen_.erase(std::unique(seen_.begin(), seen_.end()), seen_.end());
  for (const int32_t id : seen_) {
    if (id < 0 || static_cast<size_t>(id) >= logits.size()) continue;
    float& logit = logits[static_cast<size_t>(id)];
    logit = logit > 0 ? logit / options_.repetition_penalty : logit * options_.repetition_penalty;
  }
}

void Sampler::keep_top_k(std::span<float> logits) {
  values_.assign(logits.begin(), logits.end());
  const auto kth = values_.begin() + (options_.top_k - 1);
  std::nth_element(values_.begin(), kth, values_.end(), std::greater<>());
  const float threshold = *kth;
  for (float& logit : logits) {
    if (logit < threshold) logit = kFiltered;
  }
}

void Sampler::keep_top_p(std::span<float> logits) {
  const float top = largest(logits);
  candidates_.clear();
  double total = 0;
  for (size_t id = 0; id < logits.size(); ++id) {
    if (logits[id] == kFiltered) continue;
    candidates_.emplace_back(logits[id], static_cast<int32_t>(id));
    total += std::exp(static_cast<double>(logits[id] - top));
  }
  // A heap, not a sort: mostly a few tokens carry the probability. Of equals the lower id comes first.
  const auto comes_later = [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first < b.first : a.second > b.second;
  };
  std::make_heap(candidates_.begin(), candidates_.end(), comes_later);
  std::fill(logits.begin(), logits.end(), kFiltered);
  double above = 0;  // probability of the tokens kept so far
  int32_t kept = 0;
  while (!candidates_.empty() && (above < options_.top_p || kept < options_.min_keep)) {
    std::pop_heap(candidates_.begin(), candidates_.end(), comes_later);
    const auto [logit, id] = candidates_.back();
    candidates_.pop_back();
    logits[static_cast<size_t>(id)] = logit;
    above += std::exp(static_cast<double>(logit - top)) / total;
    ++kept;
  }
}

void Sampler::keep_min_p(std::span<float> logits) const {
  float threshold = largest(logits) + std::log(options_.min_p);
  if (options_.min_keep > 1) {
    std::vector<float> values(logits.begin(), logits.end());
    const auto nth =
        values.begin() + (std::min<size_t>(static_cast<size_t>(options_.min_keep), values.size()) - 1);
    std::nth_element(values.begin(), nth, values.end(), std::greater<>());
    threshold = std::min(threshold, *nth);
  }
  for (float& logit : logits) {
    if (logit < threshold) logit = kFiltered;
  }
}

std::optional<int32_t> likeliest(std::span<const float> logits) {
  std::optional<int32_t> best;
  float top = kFiltered;
  for (size_t id = 0; id < logits.size(); ++id) {
    if (std::isnan(logits[id])) return std::nullopt;
    if (logits[id] > top) {
      top = logits[id];
      best = static_cast<int32_t>(id);
    }
  }
  return std::isfinite(top) ? best : std::nullopt;
}

float log_probability(std::span<const float> logits, int32_t id) {
  const float top = largest(logits);
  double total = 0;
  for (const float logit : logits) total += std::exp(static_cast<double>(logit - top));
  return static_cast<float>(static_cast<double>(logits[static_cast<size_t>(id)] - top) - std::log(total));
}

}  // namespace qkv
