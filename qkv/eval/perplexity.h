// Perplexity of a text, exp(mean negative log-likelihood per token), by the two usual protocols.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

#include "qkv/eval/windows.h"

namespace qkv {

struct Perplexity {
  double perplexity = 0;
  double standard_error = 0;           // of the perplexity
  double negative_log_likelihood = 0;  // mean per token, in nats
  double bits_per_byte = 0;            // of the bytes that the counted tokens spell
  int64_t tokens = 0;                  // counted
  int64_t windows = 0;
};

// Error as text_windows() gives it.
Perplexity measure_perplexity(const Model& model, const Tokenizer& tokenizer, std::string_view text,
                              const WindowOptions& options = {},
                              const std::function<void(int64_t done, int64_t total)>& progress = {});

}  // namespace qkv
