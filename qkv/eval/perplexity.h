// Perplexity of a text, exp(mean negative log-likelihood per token), by the two usual protocols.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "qkv/models/model.h"
#include "qkv/text/tokenizer.h"

namespace qkv {

struct PerplexityOptions {
  int64_t context = 512;  // tokens per window; at most the model's positions
  // 0: llama.cpp's protocol: windows side by side, each beginning with BOS where the vocabulary adds one, and
  // only the second half of each window counts. > 0: Hugging Face's sliding window: windows `stride` tokens
  // apart, every token counted once, with as much context before it as the window gives.
  int64_t stride = 0;
  DType compute_type = DType::f32;
  int64_t batch_tokens = 2048;
  int64_t max_windows = 0;  // 0: all
};

struct Perplexity {
  double perplexity = 0;
  double standard_error = 0;           // of the perplexity
  double negative_log_likelihood = 0;  // mean per token, in nats
  double bits_per_byte = 0;            // of the bytes that the counted tokens spell
  int64_t tokens = 0;                  // counted
  int64_t windows = 0;
};

// Error if the text is shorter than two windows (llama.cpp's protocol) or two tokens (sliding).
Perplexity measure_perplexity(const Model& model, const Tokenizer& tokenizer, std::string_view text,
                              const PerplexityOptions& options = {},
                              const std::function<void(int64_t done, int64_t total)>& progress = {});

}  // namespace qkv
