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

// Tokens of every window per pass that goes through a cache.
constexpr int64_t kPiece = 128;

// The final hidden states (T, C) of all tokens.
Tensor through_caches(const WindowBatch& batch, const Model& model, DType compute_type, const CacheOptions& cache) {
  std::vector<SequenceState> states;
  for (size_t w = 0; w < batch.lengths.size(); ++w) states.push_back(model.make_state(cache));
  const int64_t longest = *std::max_element(batch.lengths.begin(), batch.lengths.end());
  Tensor all;
  for (int64_t begin = 0; begin < longest; begin += kPiece) {
    Pass pass;
    pass.compute_type = compute_type;
    pass.sequences.offsets = {0};
    std::vector<int32_t> tokens;
    std::vector<int64_t> places;  // of the pieces in the batch
    int64_t first = 0;
    for (size_t w = 0; w < states.size(); first += batch.lengths[w++]) {
      const int64_t end = std::min(begin + kPiece, batch.lengths[w]);
      if (begin >= end) continue;
      tokens.insert(tokens.end(), batch.inputs.begin() + first + begin, batch.inputs.begin() + first + end);
      for (int64_t t = begin; t < end; ++t) pass.positions.push_back(static_cast<int32_t>(t));
      pass.sequences.offsets.push_back(static_cast<int64_t>(tokens.size()));
      pass.states.push_back(&states[w]);
      places.push_back(first + begin);
    }
    const Tensor hidden = model.forward(tokens, pass);
    if (!all.defined())
      all = Tensor::empty({static_cast<int64_t>(batch.inputs.size()), hidden.cols()}, hidden.dtype());
    for (size_t i = 0; i < places.size(); ++i) {
      const int64_t from = pass.sequences.offsets[i], to = pass.sequences.offsets[i + 1];
      all.row_view(places[i], places[i] + to - from).copy_from(hidden.row_view(from, to));
    }
  }
  return all;
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

Tensor WindowBatch::hidden(const Model& model, DType compute_type, const std::optional<CacheOptions>& cache) const {
  if (cache) return ops::select_rows(through_caches(*this, model, compute_type, *cache), rows);
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
