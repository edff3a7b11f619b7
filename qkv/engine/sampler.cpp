#include "qkv/engine/sampler.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "qkv/core/error.h"
#include "qkv/core/rng.h"
#include "qkv/engine/samplers/penalties.h"

namespace qkv {
namespace {

// The draws of generation are streams of their own, so that a seed shared with training does not correlate
// with them.
constexpr uint64_t kSamplingStream = 0x73616D706C65ULL;
constexpr uint64_t kXtcStream = 0x787463ULL;
constexpr int kMirostatTokens = 100;  // over which the first form of mirostat estimates Zipf's exponent

constexpr std::array<std::string_view, 11> kStageNames = {
    "penalties", "dry",     "temperature", "top_k",       "top_p", "min_p",
    "typical_p", "epsilon", "eta",         "top_n_sigma", "xtc"};

void check_range(const char* name, double value, double low, double high) {
  require(value >= low && value <= high, "{}: expected a number from {} to {}, found {}", name, low, high,
          value);
}
void check_fraction(const char* name, double value) {
  require(value > 0 && value <= 1, "{}: expected a number above 0, at most 1, found {}", name, value);
}
void check_count(const char* name, int64_t value, const char* zero) {
  require(value >= 0, "{}: expected 0 ({}) or more, found {}", name, zero, value);
}

double uniform_of(uint64_t seed, uint64_t stream, uint64_t step) {
  Rng rng(seed, stream);
  rng.set_position(2 * step);
  return rng.uniform_double();
}

std::span<const int32_t> latest(std::span<const int32_t> history, int32_t window) {
  const auto n = static_cast<size_t>(window);
  return n > 0 && history.size() > n ? history.last(n) : history;
}

}  // namespace

std::string_view sampler_stage_name(SamplerStage stage) {
  return kStageNames[static_cast<size_t>(stage)];
}

std::vector<SamplerStage> parse_sampler_order(std::string_view names) {
  std::vector<SamplerStage> order;
  while (!names.empty()) {
    const size_t end = std::min(names.find_first_of(";,"), names.size());
    const std::string_view name = names.substr(0, end);
    const auto found = std::find(kStageNames.begin(), kStageNames.end(), name);
    require(found != kStageNames.end(), "samplers: expected names among {}, found '{}'",
            fmt::join(kStageNames, ", "), name);
    const auto stage = static_cast<SamplerStage>(found - kStageNames.begin());
    require(std::find(order.begin(), order.end(), stage) == order.end(),
            "samplers: expected every name once, found '{}' again", name);
    order.push_back(stage);
    names.remove_prefix(std::min(end + 1, names.size()));
  }
  return order;
}

std::vector<SamplerStage> default_sampler_order() {
  using enum SamplerStage;
  return {penalties, dry, temperature, top_k, top_p, min_p, typical_p, epsilon, eta, top_n_sigma, xtc};
}

std::vector<SamplerStage> llama_cpp_order() {
  using enum SamplerStage;
  return {penalties, dry, top_n_sigma, top_k, typical_p, top_p, min_p, xtc, temperature};
}

void check(const SamplerOptions& options) {
  check_range("temperature", options.temperature, 0, 100);
  check_range("temperature range", options.temperature_range, 0, 100);
  check_range("temperature exponent", options.temperature_exponent, 0, 100);
  check_count("top-k", options.top_k, "all tokens");
  check_fraction("top-p", options.top_p);
  check_range("min-p", options.min_p, 0, 1);
  require(options.repetition_penalty > 0 && options.repetition_penalty <= 100,
          "repetition penalty: expected a number above 0, at most 100 (1 is none), found {}",
          options.repetition_penalty);
  check_count("repetition window", options.repetition_window, "all tokens");
  require(options.min_keep >= 1, "tokens to keep: expected at least 1, found {}", options.min_keep);
  check_range("presence penalty", options.presence_penalty, -100, 100);
  check_range("frequency penalty", options.frequency_penalty, -100, 100);
  check_count("no-repeat n-gram", options.no_repeat_ngram, "allowed");
  check_fraction("typical-p", options.typical_p);
  check_range("epsilon", options.epsilon, 0, 1);
  check_range("eta", options.eta, 0, 1);
  check_range("top-n-sigma", options.top_n_sigma, 0, 1000);
  check_range("xtc probability", options.xtc_probability, 0, 1);
  check_range("xtc threshold", options.xtc_threshold, 0, 1);
  require(options.mirostat >= 0 && options.mirostat <= 2, "mirostat: expected 0 (off), 1 or 2, found {}",
          options.mirostat);
  check_range("mirostat tau", options.mirostat_tau, 0, 100);
  check_range("mirostat eta", options.mirostat_eta, 0, 1);
  check_range("dry multiplier", options.dry_multiplier, 0, 100);
  check_range("dry base", options.dry_base, 1, 100);
  require(options.dry_allowed_length >= 1, "dry allowed length: expected at least 1, found {}",
          options.dry_allowed_length);
  check_count("dry window", options.dry_window, "all tokens");
  for (const auto& [id, bias] : options.logit_bias) {
    require(!std::isnan(bias) && bias < std::numeric_limits<float>::infinity(),
            "logit bias of token {}: expected a number, or -infinity to forbid it, found {}", id, bias);
  }
  for (const auto& word : options.bad_words)
    require(!word.empty(), "bad words: expected tokens, found an empty sequence");
}

Sampler::Sampler(const SamplerOptions& options)
    : options_(options), surprise_limit_(2 * options.mirostat_tau) {
  check(options);
}

void Sampler::adjust(std::span<float> logits, std::span<const int32_t> history) {
  for (const auto& [id, bias] : options_.logit_bias) {
    if (id >= 0 && static_cast<size_t>(id) < logits.size()) logits[static_cast<size_t>(id)] += bias;
  }
  forbid_words(logits, history, options_.bad_words);
  for (const SamplerStage stage : options_.order) {
    if (stage == SamplerStage::penalties) {
      if (options_.repetition_penalty != 1 || options_.presence_penalty != 0 ||
          options_.frequency_penalty != 0) {
        penalize_repetition(logits, latest(history, options_.repetition_window), options_.repetition_penalty,
                            options_.presence_penalty, options_.frequency_penalty);
      }
      if (options_.no_repeat_ngram > 0) forbid_repeated_ngrams(logits, history, options_.no_repeat_ngram);
    } else if (stage == SamplerStage::dry && options_.dry_multiplier > 0) {
      penalize_continuations(logits, latest(history, options_.dry_window),
                             {options_.dry_multiplier, options_.dry_base, options_.dry_allowed_length},
                             options_.dry_breakers);
    }
  }
}

void Sampler::truncate(uint64_t step) {
  if (options_.mirostat != 0) {
    candidates_.scale(options_.temperature);
    limit_surprise();
    return;
  }
  for (const SamplerStage stage : options_.order) {
    if (candidates_.size() == 1) return;
    switch (stage) {
      case SamplerStage::penalties:
      case SamplerStage::dry:
        break;  // adjust()
      case SamplerStage::temperature: {
        float temperature = options_.temperature;
        if (options_.temperature_range > 0) {
          const float low = std::max(0.0f, temperature - options_.temperature_range);
          const double flatness = candidates_.entropy() / std::log(static_cast<double>(candidates_.size()));
          temperature =
              low + (temperature + options_.temperature_range - low) *
                        static_cast<float>(std::pow(std::max(flatness, 0.0), options_.temperature_exponent));
        }
        if (temperature <= 0) {
          candidates_.keep_top_k(1);
        } else if (temperature != 1) {
          candidates_.scale(temperature);
        }
        break;
      }
      case SamplerStage::top_k:
        if (options_.top_k > 0) candidates_.keep_top_k(options_.top_k);
        break;
      case SamplerStage::top_p:
        if (options_.top_p < 1) candidates_.keep_top_p(options_.top_p, options_.min_keep);
        break;
      case SamplerStage::min_p:
        if (options_.min_p > 0) candidates_.keep_min_p(options_.min_p, options_.min_keep);
        break;
      case SamplerStage::typical_p:
        if (options_.typical_p < 1) candidates_.keep_typical(options_.typical_p, options_.min_keep);
        break;
      case SamplerStage::epsilon:
        if (options_.epsilon > 0) candidates_.keep_epsilon(options_.epsilon, options_.min_keep);
        break;
      case SamplerStage::eta:
        if (options_.eta > 0) candidates_.keep_eta(options_.eta, options_.min_keep);
        break;
      case SamplerStage::top_n_sigma:
        if (options_.top_n_sigma > 0) candidates_.keep_top_n_sigma(options_.top_n_sigma, options_.min_keep);
        break;
      case SamplerStage::xtc:
        if (uniform_of(options_.seed, kXtcStream, step) < options_.xtc_probability) {
          candidates_.exclude_top_choices(options_.xtc_threshold);
        }
        break;
    }
  }
}

void Sampler::limit_surprise() {
  if (options_.mirostat == 2) {
    candidates_.keep_unsurprising(surprise_limit_);
    return;
  }
  const double s = candidates_.zipf_exponent(kMirostatTokens), epsilon = s - 1;
  const auto n = static_cast<double>(candidates_.size());
  // Zipf's law with exponent s: the top-k whose expected surprise is the limit (equation 8 of the paper).
  const double k = std::pow(epsilon * std::pow(2.0, surprise_limit_) / (1 - std::pow(n, -epsilon)), 1 / s);
  candidates_.keep_top_k(std::isfinite(k) ? static_cast<int32_t>(std::clamp(k, 1.0, n))
                                          : static_cast<int32_t>(n));
}

void Sampler::filter(std::span<float> logits, std::span<const int32_t> history, uint64_t step) {
  if (logits.empty()) return;
  adjust(logits, history);
  if (greedy() || !likeliest(logits)) return;
  candidates_.assign(logits);
  truncate(step);
  candidates_.write(logits);
}

std::optional<int32_t> Sampler::sample(std::span<float> logits, std::span<const int32_t> history,
                                       uint64_t step) {
  if (!likeliest(logits)) return std::nullopt;
  adjust(logits, history);
  const std::optional<int32_t> best = likeliest(logits);
  if (!best || greedy()) return best;
  candidates_.assign(logits);
  truncate(step);
  const int32_t drawn = candidates_.draw(uniform_of(options_.seed, kSamplingStream, step));
  if (options_.mirostat != 0) {
    surprise_limit_ -=
        options_.mirostat_eta * (static_cast<float>(candidates_.surprise(drawn)) - options_.mirostat_tau);
  }
  return drawn;
}

std::optional<int32_t> likeliest(std::span<const float> logits) {
  std::optional<int32_t> best;
  float top = -std::numeric_limits<float>::infinity();
  for (size_t id = 0; id < logits.size(); ++id) {
    if (std::isnan(logits[id])) return std::nullopt;
    if (logits[id] > top) {
      top = logits[id];
      best = static_cast<int32_t>(id);
    }
  }
  return std::isfinite(top) ? best : std::nullopt;
}

namespace {

// log of the sum of exp(logit), and of nothing else.
double log_sum(std::span<const float> logits) {
  const float top = *std::max_element(logits.begin(), logits.end());
  double total = 0;
  for (const float logit : logits) total += std::exp(static_cast<double>(logit - top));
  return top + std::log(total);
}

}  // namespace

float log_probability(std::span<const float> logits, int32_t id) {
  return static_cast<float>(logits[static_cast<size_t>(id)] - log_sum(logits));
}

std::vector<TokenLogprob> top_logprobs(std::span<const float> logits, int n) {
  std::vector<int32_t> ids(logits.size());
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i);
  const auto count = static_cast<std::ptrdiff_t>(std::min(ids.size(), static_cast<size_t>(std::max(n, 0))));
  std::partial_sort(ids.begin(), ids.begin() + count, ids.end(), [&](int32_t a, int32_t b) {
    const float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  });
  const double total = log_sum(logits);
  std::vector<TokenLogprob> result;
  for (std::ptrdiff_t i = 0; i < count; ++i) {
    const int32_t id = ids[static_cast<size_t>(i)];
    result.push_back({id, static_cast<float>(logits[static_cast<size_t>(id)] - total)});
  }
  return result;
}

}  // namespace qkv
