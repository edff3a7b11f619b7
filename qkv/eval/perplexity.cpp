#include "qkv/eval/perplexity.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "qkv/core/error.h"
#include "qkv/eval/scoring.h"
#include "qkv/tensor/autograd.h"
#include "qkv/tensor/ops.h"

namespace qkv {
namespace {

struct Window {
  std::vector<int32_t> inputs, targets;  // equally long; ops::kIgnore does not count
};

// llama.cpp's: side by side, the first half of each only read.
std::vector<Window> adjacent_windows(std::vector<int32_t> tokens, const PerplexityOptions& options,
                                     const Tokenizer& tokenizer) {
  const int64_t n = options.context, count = static_cast<int64_t>(tokens.size()) / n;
  require(count >= 2, "perplexity: expected at least {} tokens (two windows of {}), found {}", 2 * n, n,
          tokens.size());
  std::vector<Window> windows;
  for (int64_t w = 0; w < count; ++w) {
    Window window;
    window.inputs.assign(tokens.begin() + w * n, tokens.begin() + (w + 1) * n);
    window.targets.assign(static_cast<size_t>(n), ops::kIgnore);
    for (int64_t t = n / 2; t + 1 < n; ++t)
      window.targets[static_cast<size_t>(t)] = window.inputs[static_cast<size_t>(t) + 1];
    if (!tokenizer.prefix_ids().empty()) window.inputs[0] = tokenizer.prefix_ids()[0];
    windows.push_back(std::move(window));
  }
  return windows;
}

std::vector<Window> sliding_windows(const std::vector<int32_t>& tokens, const PerplexityOptions& options) {
  const auto n = static_cast<int64_t>(tokens.size());
  require(n >= 2, "perplexity: expected at least 2 tokens, found {}", n);
  std::vector<Window> windows;
  int64_t counted_to = 1;  // the first token has nothing before it
  for (int64_t begin = 0; counted_to < n; begin += options.stride) {
    const int64_t end = std::min(begin + options.context, n);
    Window window;
    window.inputs.assign(tokens.begin() + begin, tokens.begin() + end);
    window.targets.assign(window.inputs.size(), ops::kIgnore);
    for (int64_t t = std::max(begin + 1, counted_to); t < end; ++t)
      window.targets[static_cast<size_t>(t - begin - 1)] = tokens[static_cast<size_t>(t)];
    counted_to = end;
    windows.push_back(std::move(window));
  }
  return windows;
}

}  // namespace

Perplexity measure_perplexity(const Model& model, const Tokenizer& tokenizer, std::string_view text,
                              const PerplexityOptions& options,
                              const std::function<void(int64_t, int64_t)>& progress) {
  require(model.info().causal, "perplexity: {} is an encoder, which gives texts no likelihood",
          model.info().architecture);
  require(2 <= options.context && options.context <= model.info().max_positions,
          "perplexity: expected windows of 2 to {} tokens (the positions of this model), found {}",
          model.info().max_positions, options.context);
  require(options.stride >= 0 && options.stride < options.context,
          "perplexity: expected a stride below the window's {} tokens, found {}", options.context,
          options.stride);
  EncodeOptions encode;
  encode.parse_special = false;  // a text is text, whatever it spells
  const std::vector<int32_t> tokens = tokenizer.encode(text, encode);
  std::vector<Window> windows =
      options.stride > 0 ? sliding_windows(tokens, options) : adjacent_windows(tokens, options, tokenizer);
  if (options.max_windows > 0 && static_cast<int64_t>(windows.size()) > options.max_windows)
    windows.resize(static_cast<size_t>(options.max_windows));

  const NoGrad off;
  double sum = 0, squares = 0;
  int64_t counted = 0, bytes = 0;
  const auto total = static_cast<int64_t>(windows.size());
  const int64_t per_pass = std::max<int64_t>(1, options.batch_tokens / options.context);
  for (int64_t begin = 0; begin < total; begin += per_pass) {
    const int64_t end = std::min(total, begin + per_pass);
    std::vector<int32_t> inputs, targets;
    std::vector<int64_t> lengths, rows;
    for (int64_t w = begin; w < end; ++w) {
      const Window& window = windows[static_cast<size_t>(w)];
      lengths.push_back(static_cast<int64_t>(window.inputs.size()));
      for (size_t t = 0; t < window.targets.size(); ++t) {
        if (window.targets[t] == ops::kIgnore) continue;
        rows.push_back(static_cast<int64_t>(inputs.size() + t));
        targets.push_back(window.targets[t]);
      }
      inputs.insert(inputs.end(), window.inputs.begin(), window.inputs.end());
    }
    Pass pass = Pass::whole(lengths);
    pass.compute_type = options.compute_type;
    const Tensor hidden = ops::select_rows(model.forward(inputs, pass), rows);
    for (const TokenScore& score : score_rows(model, hidden, targets)) {
      sum -= score.log_prob;
      squares += score.log_prob * score.log_prob;
    }
    for (const int32_t id : targets) bytes += static_cast<int64_t>(tokenizer.token_bytes(id).size());
    counted += static_cast<int64_t>(targets.size());
    if (progress) progress(end, total);
  }
  Perplexity result;
  result.tokens = counted;
  result.windows = total;
  const auto n = static_cast<double>(counted);
  result.negative_log_likelihood = sum / n;
  result.perplexity = std::exp(result.negative_log_likelihood);
  if (counted > 1) {
    const double variance =
        std::max(0.0, squares / n - result.negative_log_likelihood * result.negative_log_likelihood);
    result.standard_error = result.perplexity * std::sqrt(variance / (n - 1));
  }
  if (bytes > 0) result.bits_per_byte = sum / std::log(2.0) / static_cast<double>(bytes);
  return result;
}

}  // namespace qkv
