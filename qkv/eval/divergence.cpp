#include "qkv/eval/divergence.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "qkv/core/error.h"
#include "qkv/core/interrupt.h"
#include "qkv/core/parallel.h"
#include "qkv/tensor/autograd.h"

namespace qkv {
namespace {

// The 97.5 % point of Student's t.
double t_quantile(int64_t degrees) {
  // Beyond the table by Fisher's expansion around the normal's (error < 4e-4).
  constexpr std::array<double, 8> table = {12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060};
  if (degrees <= static_cast<int64_t>(table.size())) return table[static_cast<size_t>(degrees - 1)];
  constexpr double z = 1.959964;
  const auto v = static_cast<double>(degrees);
  const double z3 = z * z * z, z5 = z3 * z * z, z7 = z5 * z * z;
  return z + (z3 + z) / (4 * v) + (5 * z5 + 16 * z3 + 3 * z) / (96 * v * v) +
         (3 * z7 + 19 * z5 + 17 * z3 - 15 * z) / (384 * v * v * v);
}

// Lengths of the blocks that errors are taken over.
std::vector<int64_t> blocks_of(std::span<const int64_t> windows) {
  const auto count = static_cast<int64_t>(windows.size());
  const int64_t parts = std::max<int64_t>(1, (kLeastBlocks + count - 1) / std::max<int64_t>(1, count));
  std::vector<int64_t> blocks;
  for (const int64_t length : windows) {
    for (int64_t p = 0; p < parts; ++p) {
      const int64_t block = length * (p + 1) / parts - length * p / parts;
      if (block > 0) blocks.push_back(block);
    }
  }
  return blocks;
}

double log_sum_exp(const float* x, int64_t n) {
  const double largest = static_cast<double>(*std::max_element(x, x + n));
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += std::exp(static_cast<double>(x[i]) - largest);
  return largest + std::log(sum);
}

// The value that a share `q` of the sorted values does not exceed, linear between neighbours.
double percentile(const std::vector<double>& sorted, double q) {
  const double at = q * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(at);
  if (below + 1 >= sorted.size()) return sorted.back();
  return sorted[below] + (at - static_cast<double>(below)) * (sorted[below + 1] - sorted[below]);
}

// Compares all rows of a batch: positions in order.
void compare_batch(const Model& model, const Model& reference, const WindowBatch& batch, DType compute_type,
                   std::vector<RowDivergence>& all) {
  const Tensor own = batch.hidden(model, compute_type), parent = batch.hidden(reference, compute_type);
  const auto rows = static_cast<int64_t>(batch.rows.size());
  const int64_t vocabulary = model.info().vocabulary;
  const int64_t chunk = std::max<int64_t>(1, (int64_t{1} << 24) / vocabulary);  // 64 MiB of logits of each
  const size_t before = all.size();
  all.resize(before + static_cast<size_t>(rows));
  for (int64_t begin = 0; begin < rows; begin += chunk) {
    const int64_t end = std::min(rows, begin + chunk);
    const Tensor found = model.logits(own.row_view(begin, end)),
                 wanted = reference.logits(parent.row_view(begin, end));  // (rows, V)
    parallel_for(end - begin, 1, [&](int64_t first, int64_t last) {
      for (int64_t r = first; r < last; ++r) {
        all[before + static_cast<size_t>(begin + r)] =
            compare_rows(found.data<float>() + r * vocabulary, wanted.data<float>() + r * vocabulary,
                         vocabulary, batch.targets[static_cast<size_t>(begin + r)]);
      }
    });
  }
  for (size_t i = before; i < all.size(); ++i) {
    const bool reference_broken = std::isnan(all[i].reference_log_prob);
    require(!reference_broken && !std::isnan(all[i].log_prob) && !std::isnan(all[i].kl),
            "divergence: the {} gives logits that are no numbers at counted token {}",
            reference_broken ? "reference" : "model", i);
  }
}

}  // namespace

Estimate clustered_mean(std::span<const double> values, std::span<const int64_t> blocks) {
  Estimate estimate;
  if (values.empty()) return estimate;
  const auto n = static_cast<double>(values.size()), count = static_cast<double>(blocks.size());
  double sum = 0;
  for (const double value : values) sum += value;
  estimate.value = estimate.low = estimate.high = sum / n;
  if (blocks.size() < 2) return estimate;
  double squares = 0;
  size_t at = 0;
  for (const int64_t block : blocks) {
    double deviation = 0;
    for (int64_t i = 0; i < block; ++i) deviation += values[at++] - estimate.value;
    squares += deviation * deviation;
  }
  estimate.standard_error = std::sqrt(count / (count - 1) * squares) / n;
  const double half = t_quantile(static_cast<int64_t>(blocks.size()) - 1) * estimate.standard_error;
  estimate.low -= half;
  estimate.high += half;
  return estimate;
}

Estimate exponential(const Estimate& estimate) {
  const double value = std::exp(estimate.value);
  return {value, value * estimate.standard_error, std::exp(estimate.low), std::exp(estimate.high)};
}

RowDivergence compare_rows(const float* model, const float* reference, int64_t n, int64_t target) {
  const double model_sum = log_sum_exp(model, n), reference_sum = log_sum_exp(reference, n);
  RowDivergence result;
  for (int64_t i = 0; i < n; ++i) {
    const double p = static_cast<double>(reference[i]) - reference_sum,
                 q = static_cast<double>(model[i]) - model_sum;
    if (std::isfinite(p)) result.kl += std::exp(p) * (p - q);
  }
  if (result.kl < 0) result.kl = 0;  // by rounding
  result.same_top =
      std::max_element(model, model + n) - model == std::max_element(reference, reference + n) - reference;
  result.log_prob = static_cast<double>(model[target]) - model_sum;
  result.reference_log_prob = static_cast<double>(reference[target]) - reference_sum;
  return result;
}

void require_same_vocabulary(const ModelInfo& model, const Tokenizer* tokenizer, const ModelInfo& reference,
                             const Tokenizer& reference_tokenizer) {
  require(model.vocabulary == reference.vocabulary,
          "the model and its reference must have one vocabulary: the model gives {} logits, the reference {}",
          model.vocabulary, reference.vocabulary);
  if (tokenizer == nullptr) return;
  require(
      tokenizer->vocab_size() == reference_tokenizer.vocab_size(),
      "the model and its reference must have one vocabulary: the model's has {} tokens, the reference's {}",
      tokenizer->vocab_size(), reference_tokenizer.vocab_size());
  for (int32_t id = 0; id < tokenizer->vocab_size(); ++id) {
    require(tokenizer->token_bytes(id) == reference_tokenizer.token_bytes(id),
            "the model and its reference must have one vocabulary: token {} is '{}' to the model and '{}' to "
            "the reference",
            id, tokenizer->id_to_token(id), reference_tokenizer.id_to_token(id));
  }
}

Divergence measure_divergence(const Model& model, const Model& reference, std::span<const TextWindow> windows,
                              const WindowOptions& options,
                              const std::function<void(int64_t, int64_t)>& progress) {
  require(model.info().vocabulary == reference.info().vocabulary,
          "divergence: expected as many logits as the reference's {}, found {}", reference.info().vocabulary,
          model.info().vocabulary);
  const NoGrad off;
  std::vector<RowDivergence> rows;
  std::vector<int64_t> counted;
  for (const WindowBatch& batch : batches_of(windows, options)) {
    stop_if_interrupted();
    compare_batch(model, reference, batch, options.compute_type, rows);
    counted.insert(counted.end(), batch.counted.begin(), batch.counted.end());
    if (progress) progress(static_cast<int64_t>(counted.size()), static_cast<int64_t>(windows.size()));
  }
  require(!rows.empty(), "divergence: expected positions to compare, found none");

  const std::vector<int64_t> blocks = blocks_of(counted);
  const auto mean_of = [&](auto&& value) {
    std::vector<double> values;
    for (const RowDivergence& row : rows) values.push_back(value(row));
    return clustered_mean(values, blocks);
  };
  Divergence result;
  result.tokens = static_cast<int64_t>(rows.size());
  result.windows = static_cast<int64_t>(windows.size());
  result.blocks = static_cast<int64_t>(blocks.size());
  result.kl = mean_of([](const RowDivergence& row) { return row.kl; });
  result.kl.low = std::max(0.0, result.kl.low);
  result.same_top = mean_of([](const RowDivergence& row) { return row.same_top ? 1.0 : 0.0; });
  result.same_top.low = std::max(0.0, result.same_top.low);
  result.same_top.high = std::min(1.0, result.same_top.high);
  result.perplexity = exponential(mean_of([](const RowDivergence& row) { return -row.log_prob; }));
  result.reference_perplexity =
      exponential(mean_of([](const RowDivergence& row) { return -row.reference_log_prob; }));
  result.perplexity_ratio =
      exponential(mean_of([](const RowDivergence& row) { return row.reference_log_prob - row.log_prob; }));
  result.probability_rms = std::sqrt(mean_of([](const RowDivergence& row) {
                                       const double change =
                                           std::exp(row.log_prob) - std::exp(row.reference_log_prob);
                                       return change * change;
                                     }).value);
  std::vector<double> sorted;
  for (const RowDivergence& row : rows) sorted.push_back(row.kl);
  std::sort(sorted.begin(), sorted.end());
  result.kl_median = percentile(sorted, 0.5);
  result.kl_90 = percentile(sorted, 0.9);
  result.kl_95 = percentile(sorted, 0.95);
  result.kl_99 = percentile(sorted, 0.99);
  result.kl_999 = percentile(sorted, 0.999);
  result.kl_max = sorted.back();
  return result;
}

Divergence measure_divergence(const Model& model, const Model& reference, const Tokenizer& tokenizer,
                              std::string_view text, const WindowOptions& options,
                              const std::function<void(int64_t, int64_t)>& progress) {
  require(options.context <= model.info().max_positions,
          "expected windows of at most {} tokens (the positions of this model), found {}",
          model.info().max_positions, options.context);
  return measure_divergence(model, reference, text_windows(reference.info(), tokenizer, text, options),
                            options, progress);
}

}  // namespace qkv
