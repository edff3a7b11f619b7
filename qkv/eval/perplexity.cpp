#include "qkv/eval/perplexity.h"

#include <algorithm>
#include <cmath>

#include "qkv/core/interrupt.h"
#include "qkv/eval/scoring.h"
#include "qkv/tensor/autograd.h"

namespace qkv {

Perplexity measure_perplexity(const Model& model, const Tokenizer& tokenizer, std::string_view text,
                              const WindowOptions& options,
                              const std::function<void(int64_t, int64_t)>& progress) {
  const std::vector<TextWindow> windows = text_windows(model.info(), tokenizer, text, options);
  const NoGrad off;
  double sum = 0, squares = 0;
  int64_t counted = 0, bytes = 0, done = 0;
  const auto total = static_cast<int64_t>(windows.size());
  for (const WindowBatch& batch : batches_of(windows, options)) {
    stop_if_interrupted();
    for (const TokenScore& score :
         score_rows(model, batch.hidden(model, options.compute_type, options.cache), batch.targets)) {
      sum -= score.log_prob;
      squares += score.log_prob * score.log_prob;
    }
    for (const int32_t id : batch.targets) bytes += static_cast<int64_t>(tokenizer.token_bytes(id).size());
    counted += static_cast<int64_t>(batch.targets.size());
    done += static_cast<int64_t>(batch.lengths.size());
    if (progress) progress(done, total);
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
