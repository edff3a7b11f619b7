#include "quantize_cost.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "console.h"
#include "qkv/core/error.h"
#include "qkv/core/progress.h"

namespace qkv {

CostMeter::CostMeter(const std::string& model, const std::string& text_file, int64_t context, int64_t windows)
    : parent_(load_bundle(model)) {
  const std::string text = read_input(text_file);
  require_utf8(text, text_file);
  EncodeOptions encode;
  encode.parse_special = false;
  const auto tokens = static_cast<int64_t>(parent_.tokenizer->encode(text, encode).size());
  require(tokens >= 4, "{}: expected at least 4 tokens to measure on, found {}", text_file, tokens);
  options_.context = std::min({context, parent_.model->info().max_positions, tokens / 2});
  options_.max_windows = windows;
  windows_ = text_windows(parent_.model->info(), *parent_.tokenizer, text, options_);
}

Divergence CostMeter::measure(const Model& model) const {
  std::optional<Progress> progress;
  return measure_divergence(model, *parent_.model, windows_, options_, [&](int64_t done, int64_t total) {
    if (!progress) progress.emplace("comparing", static_cast<uint64_t>(total), "windows");
    progress->update(static_cast<uint64_t>(done));
  });
}

namespace {

Json estimate_json(const Estimate& estimate) {
  return {{"value", estimate.value}, {"low", estimate.low}, {"high", estimate.high}};
}

}  // namespace

std::string cost_lines(const Divergence& cost, const std::string& text_file) {
  return fmt::format(
      "KL divergence   {:.5g} nats a token (95 %: {:.5g} to {:.5g}), on {} tokens of {}\n"
      "same top token  {:.2f} % ({:.2f} to {:.2f})\n"
      "perplexity      {:.5g} ({:.5g} to {:.5g}); of the original {:.5g}, ratio {:.4f} ({:.4f} to {:.4f})\n",
      cost.kl.value, cost.kl.low, cost.kl.high, cost.tokens, text_file, 100 * cost.same_top.value,
      100 * cost.same_top.low, 100 * cost.same_top.high, cost.perplexity.value, cost.perplexity.low,
      cost.perplexity.high, cost.reference_perplexity.value, cost.perplexity_ratio.value,
      cost.perplexity_ratio.low, cost.perplexity_ratio.high);
}

Json cost_json(const Divergence& cost, const std::string& text_file) {
  return {{"text", text_file},
          {"kl", estimate_json(cost.kl)},
          {"same_top", estimate_json(cost.same_top)},
          {"perplexity", estimate_json(cost.perplexity)},
          {"reference_perplexity", estimate_json(cost.reference_perplexity)},
          {"perplexity_ratio", estimate_json(cost.perplexity_ratio)},
          {"tokens", cost.tokens}};
}

}  // namespace qkv
