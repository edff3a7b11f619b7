// How far a model has moved from its reference (a quantized one from its parent): the Kullback-Leibler
// divergence of the next-token distributions over a text (Kullback & Leibler 1951), how often both put the
// same token first, and what perplexity makes of the difference.
//
// Errors: the positions of a window share their context, so what they give is correlated and an error taken
// over positions would be too small. A text is therefore cut into blocks, and the error is that of a mean
// over clusters: se^2 = B / (B - 1) * sum over B blocks of (sum in the block of (x - mean))^2 / N^2. A block
// is a window; where there are fewer than kLeastBlocks of them, an equal part of one. Intervals are for 95 %,
// by Student's t with B - 1 degrees of freedom; those of perplexities are taken of the logarithm.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "qkv/eval/windows.h"

namespace qkv {

constexpr int64_t kLeastBlocks = 16;

struct Estimate {
  double value = 0, standard_error = 0;
  double low = 0, high = 0;  // of the 95 % interval
};

// The mean of values whose consecutive blocks have the given lengths (which add up to their number), with the
// error described above; no error for fewer than two blocks.
Estimate clustered_mean(std::span<const double> values, std::span<const int64_t> blocks);
// e^x of an estimate: the interval's ends are mapped, the error by the derivative.
Estimate exponential(const Estimate& estimate);

// One position: KL(reference || model) in nats, and whether both put the same token first.
struct RowDivergence {
  double kl = 0;
  bool same_top = false;
  double log_prob = 0, reference_log_prob = 0;  // of the target
};
// Logits (n) of the model and of the reference; sums in double.
RowDivergence compare_rows(const float* model, const float* reference, int64_t n, int64_t target);

struct Divergence {
  Estimate kl;  // mean, in nats
  double kl_median = 0, kl_90 = 0, kl_95 = 0, kl_99 = 0, kl_999 = 0, kl_max = 0;
  Estimate same_top;  // share of positions
  Estimate perplexity, reference_perplexity;
  Estimate perplexity_ratio;   // model / reference, of paired positions: far sharper than the two
  double probability_rms = 0;  // root mean square change of the target's probability
  int64_t tokens = 0, windows = 0, blocks = 0;
};

// Error naming what differs unless ids mean the same to both: as many logits, and each token spelled alike.
// `tokenizer` null: a model that came without one, whose logits are all there is to compare.
void require_same_vocabulary(const ModelInfo& model, const Tokenizer* tokenizer, const ModelInfo& reference,
                             const Tokenizer& reference_tokenizer);

// Both models run on the same windows, pass by pass, and logits exist for a bounded number of rows at a time.
// Error if the vocabularies differ in size, as text_windows() gives it, or naming the model and the token
// where logits are not numbers.
Divergence measure_divergence(const Model& model, const Model& reference, const Tokenizer& tokenizer,
                              std::string_view text, const WindowOptions& options = {},
                              const std::function<void(int64_t done, int64_t total)>& progress = {});
// The same on windows that are there already (calibration sequences, say).
Divergence measure_divergence(const Model& model, const Model& reference, std::span<const TextWindow> windows,
                              const WindowOptions& options = {},
                              const std::function<void(int64_t done, int64_t total)>& progress = {});

}  // namespace qkv
