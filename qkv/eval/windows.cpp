#include "qkv/eval/windows.h"

#include <algorithm>

#include "qkv/core/error.h"
#include "qkv/nn/pass.h"
#include "qkv/tensor/ops.h"

namespace qkv {
namespace {

// llama.cpp's: side by side, the first half of each only read.
std::vector<TextWindow> adjacent_windows(const std::vector<int32_t>& tokens, const WindowOptions& options,
                                         const Tokenizer& tokenizer) {
  const int64_t n = options.context, count = static_cast<int64_t>(tokens.size()) / n;
  require(count >= 2, "text: expected at least {} tokens (two windows of {}), found {}", 2 * n, n,
          tokens.size());
  std::vector<TextWindow> windows;
  for (int64_t w = 0; w < count; ++w) {
    TextWindow window;
    window.inputs.assign(tokens.begin() + w * n, tokens.begin() + (w + 1) * n);
    window.targets.assign(static_cast<size_t>(n), ops::kIgnore);
    for (int64_t t = n / 2; t + 1 < n; ++t)
      window.targets[static_cast<size_t>(t)] = window.inputs[static_cast<size_t>(t) + 1];
    if (!tokenizer.prefix_ids().empty()) window.inputs[0] = tokenizer.prefix_ids()[0];
    windows.push_back(std::move(window));
  }
  return windows;
}

std::vector<TextWindow> sliding_windows(const std::vector<int32_t>& tokens, const WindowOptions& options) {
  const auto n = static_cast<int64_t>(tokens.size());
  require(n >= 2, "text: expected at least 2 tokens, found {}", n);
  std::vector<TextWindow> windows;
  int64_t counted_to = 1;  // the first token has nothing before it
  for (int64_t begin = 0; counted_to < n; begin += options.stride) {
    const int64_t end = std::min(begin + options.context, n);
    TextWindow window;
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

std::vector<TextWindow> text_windows(const ModelInfo& model, const Tokenizer& tokenizer,
                                     std::string_view text, const WindowOptions& options) {
  require(model.causal, "{} is an encoder, which gives texts no likelihood", model.architecture);
  require(2 <= options.context && options.context <= model.max_positions,
          "expected windows of 2 to {} tokens (the positions of this model), found {}", model.max_positions,
          options.context);
  require(options.stride >= 0 && options.stride < options.context,
          "expected a stride below the window's {} tokens, found {}", options.context, options.stride);
  EncodeOptions encode;
  encode.parse_special = false;  // a text is text, whatever it spells
  const std::vector<int32_t> tokens = tokenizer.encode(text, encode);
  std::vector<TextWindow> windows =
      options.stride > 0 ? sliding_windows(tokens, options) : adjacent_windows(tokens, options, tokenizer);
  if (options.max_windows > 0 && static_cast<int64_t>(windows.size()) > options.max_windows)
    windows.resize(static_cast<size_t>(options.max_windows));
  return windows;
}

Tensor WindowBatch::hidden(const Model& model, DType compute_type) const {
  Pass pass = Pass::whole(lengths);
  pass.compute_type = compute_type;
  return ops::select_rows(model.forward(inputs, pass), rows);
}

std::vector<WindowBatch> batches_of(std::span<const TextWindow> windows, const WindowOptions& options) {
  const auto per_pass = static_cast<size_t>(std::max<int64_t>(1, options.batch_tokens / options.context));
  std::vector<WindowBatch> batches;
  for (size_t begin = 0; begin < windows.size(); begin += per_pass) {
    WindowBatch batch;
    for (const TextWindow& window : windows.subspan(begin, std::min(per_pass, windows.size() - begin))) {
      const size_t before = batch.rows.size();
      for (size_t t = 0; t < window.targets.size(); ++t) {
        if (window.targets[t] == ops::kIgnore) continue;
        batch.rows.push_back(static_cast<int64_t>(batch.inputs.size() + t));
        batch.targets.push_back(window.targets[t]);
      }
      batch.counted.push_back(static_cast<int64_t>(batch.rows.size() - before));
      batch.lengths.push_back(static_cast<int64_t>(window.inputs.size()));
      batch.inputs.insert(batch.inputs.end(), window.inputs.begin(), window.inputs.end());
    }
    batches.push_back(std::move(batch));
  }
  return batches;
}

}  // namespace qkv
