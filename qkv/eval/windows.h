// A text cut into the windows that a model is measured on, by the two usual protocols, and packed into
// passes.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "qkv/models/model.h"
#include "qkv/text/tokenizer.h"

namespace qkv {

struct WindowOptions {
  int64_t context = 512;  // tokens per window; at most the model's positions
  // 0: llama.cpp's protocol: windows side by side, each beginning with BOS where the vocabulary adds one, and
  // only the second half of each window counts. > 0: Hugging Face's sliding window: windows `stride` tokens
  // apart, every token counted once, with as much context before it as the window gives.
  int64_t stride = 0;
  DType compute_type = DType::f32;
  int64_t batch_tokens = 2048;  // of a pass: whole windows, at least one
  int64_t max_windows = 0;      // 0: all
  // Windows are read piece by piece through caches of this kind, as a prompt is, instead of as whole sequences.
  std::optional<CacheOptions> cache = {};
};

struct TextWindow {
  std::vector<int32_t> inputs, targets;  // equally long; ops::kIgnore does not count
};

// Error if the model is no language model, the window does not fit it, or the text is shorter than two
// windows (llama.cpp's protocol) or two tokens (sliding).
std::vector<TextWindow> text_windows(const ModelInfo& model, const Tokenizer& tokenizer,
                                     std::string_view text, const WindowOptions& options);

// Windows as one pass takes them.
struct WindowBatch {
  std::vector<int32_t> inputs;   // (T), packed
  std::vector<int64_t> lengths;  // of the windows
  std::vector<int64_t> rows;     // (R): which of the T predict what counts
  std::vector<int32_t> targets;  // (R)
  std::vector<int64_t> counted;  // of each window: how many of the R are its

  // The final hidden states (R, C) of the rows: of whole sequences, or, off the tape, through caches.
  Tensor hidden(const Model& model, DType compute_type, const std::optional<CacheOptions>& cache = {}) const;
};
std::vector<WindowBatch> batches_of(std::span<const TextWindow> windows, const WindowOptions& options);

}  // namespace qkv
