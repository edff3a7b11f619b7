#include "qkv/quant/sparsity.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "qkv/core/error.h"
#include "qkv/quant/error_feedback.h"
#include "qkv/quant/inverse_factor.h"

namespace qkv {
namespace {

constexpr int64_t kSparseGptBlock = 128;

// Calls drop(i) for the `count` smallest of n scores.
template <typename Drop>
void drop_smallest(const float* scores, int64_t n, int64_t count, Drop&& drop) {
  if (count <= 0) return;
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  const auto before = [&](int64_t a, int64_t b) {
    return scores[a] < scores[b] || (scores[a] == scores[b] && a < b);
  };
  std::nth_element(order.begin(), order.begin() + (count - 1), order.end(), before);
  std::for_each(order.begin(), order.begin() + count, drop);
}

int64_t dropped(double share, int64_t count) {
  return static_cast<int64_t>(share * static_cast<double>(count));
}

// Zeroes in every row the weights with the smallest scores.
void prune_rows(Tensor& weight, const std::vector<float>& column_factors, const SparsityPattern& pattern) {
  const int64_t columns = weight.cols();
  float* values = weight.data<float>();
  parallel_for(weight.rows(), 1, [&](int64_t begin, int64_t end) {
    std::vector<float> scores(static_cast<size_t>(columns));
    for (int64_t r = begin; r < end; ++r) {
      float* row = values + r * columns;
      for (int64_t c = 0; c < columns; ++c)
        scores[static_cast<size_t>(c)] = std::abs(row[c]) * column_factors[static_cast<size_t>(c)];
      if (!pattern.is_structured()) {
        drop_smallest(scores.data(), columns, dropped(pattern.share, columns),
                      [&](int64_t c) { row[c] = 0; });
        continue;
      }
      for (int64_t first = 0; first + pattern.of <= columns; first += pattern.of)
        drop_smallest(scores.data() + first, pattern.of, pattern.zeros,
                      [&](int64_t c) { row[first + c] = 0; });
    }
  });
}

}  // namespace

void SparsityPattern::require_valid() const {
  if (is_structured()) {
    require(0 < zeros && zeros < of && of <= 64,
            "sparsity: expected a pattern such as 2:4, found {} zeros of {}", zeros, of);
  } else {
    require(share >= 0 && share < 1, "sparsity: expected a share from 0 to below 1, found {}", share);
  }
}

Tensor prune_by_magnitude(const Tensor& weight, const SparsityPattern& pattern) {
  pattern.require_valid();
  Tensor result = weight.clone();
  if (pattern.is_structured()) {
    prune_rows(result, std::vector<float>(static_cast<size_t>(weight.cols()), 1.0f), pattern);
    return result;
  }
  std::vector<float> scores(static_cast<size_t>(weight.elements()));
  float* values = result.data<float>();
  for (size_t i = 0; i < scores.size(); ++i) scores[i] = std::abs(values[i]);
  drop_smallest(scores.data(), weight.elements(), dropped(pattern.share, weight.elements()),
                [&](int64_t i) { values[i] = 0; });
  return result;
}

Tensor prune_wanda(const Tensor& weight, const InputStatistics& inputs, const SparsityPattern& pattern) {
  pattern.require_valid();
  require(inputs.columns() == weight.cols(), "wanda: expected statistics of {} inputs, found {}",
          weight.cols(), inputs.columns());
  std::vector<float> norms;
  for (const double square : inputs.squares()) norms.push_back(static_cast<float>(std::sqrt(square)));
  Tensor result = weight.clone();
  prune_rows(result, norms, pattern);
  return result;
}

Tensor prune_sparsegpt(const Tensor& weight, const InputStatistics& inputs, const SparsityPattern& pattern,
                       double damping, std::string_view where) {
  pattern.require_valid();
  const int64_t rows = weight.rows(), columns = weight.cols();
  require(inputs.columns() == columns, "[sparsegpt] {}: expected statistics of {} inputs, found {}", where,
          columns, inputs.columns());
  const Tensor factor =
      damped_inverse_factor(inputs.products(), damping, fmt::format("[sparsegpt] {}", where));
  Tensor result = weight.clone();
  const float* values = result.data<float>();
  const float* u = factor.data<float>();
  const auto score = [&](float w, int64_t column) {
    const float ratio = w / u[column * columns + column];
    return ratio * ratio;
  };
  // Groups of a pattern do not lie in two blocks.
  const int64_t block = pattern.is_structured() ? kSparseGptBlock / pattern.of * pattern.of : kSparseGptBlock;
  std::vector<uint8_t> mask;  // (rows, block)
  int64_t width = 0;
  const auto choose = [&](int64_t first, int64_t count) {
    width = count;
    mask.assign(static_cast<size_t>(rows * count), 0);
    if (pattern.is_structured()) return;
    std::vector<float> scores(mask.size());
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < count; ++c)
        scores[static_cast<size_t>(r * count + c)] = score(values[r * columns + first + c], first + c);
    drop_smallest(scores.data(), rows * count, dropped(pattern.share, rows * count),
                  [&](int64_t i) { mask[static_cast<size_t>(i)] = 1; });
  };
  walk_columns(result, factor, block, choose, [&](RowPiece& piece) {
    uint8_t* drop = &mask[static_cast<size_t>(piece.row * width)];
    std::vector<float> scores(static_cast<size_t>(std::max(pattern.of, 1)));
    for (int64_t i = 0; i < piece.count; ++i) {
      if (pattern.is_structured() && i % pattern.of == 0 && i + pattern.of <= piece.count) {
        for (int64_t k = 0; k < pattern.of; ++k)
          scores[static_cast<size_t>(k)] = score(piece.values[i + k], piece.first + i + k);
        drop_smallest(scores.data(), pattern.of, pattern.zeros, [&](int64_t k) { drop[i + k] = 1; });
      }
      piece.change(i, drop[i] != 0 ? 0.0f : piece.values[i]);
    }
  });
  return result;
}

double sparsity_of(const Tensor& weight) {
  const auto values = weight.span<float>();
  const auto zeros = std::count(values.begin(), values.end(), 0.0f);
  return values.empty() ? 0 : static_cast<double>(zeros) / static_cast<double>(values.size());
}

}  // namespace qkv
