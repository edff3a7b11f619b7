#include "qkv/quant/awq.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "qkv/core/error.h"
#include "qkv/core/parallel.h"

namespace qkv {
namespace {

template <typename Combine>
Tensor with_columns(const Tensor& weight, const std::vector<float>& factors, Combine&& combine) {
  const int64_t columns = weight.cols();
  require(static_cast<int64_t>(factors.size()) == columns, "scaling: expected {} factors, found {}", columns,
          factors.size());
  Tensor result = Tensor::empty(weight.shape());
  const float* from = weight.data<float>();
  float* to = result.data<float>();
  parallel_for(weight.rows(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      for (int64_t c = 0; c < columns; ++c)
        to[r * columns + c] = combine(from[r * columns + c], factors[static_cast<size_t>(c)]);
  });
  return result;
}

std::vector<float> factors_of(const std::vector<double>& magnitudes, double ratio) {
  constexpr double kSmallest = 1e-4;
  std::vector<double> powers;
  double smallest = std::numeric_limits<double>::infinity(), largest = 0;
  for (const double magnitude : magnitudes) {
    powers.push_back(std::max(std::pow(magnitude, ratio), kSmallest));
    smallest = std::min(smallest, powers.back());
    largest = std::max(largest, powers.back());
  }
  std::vector<float> factors;
  for (const double power : powers)
    factors.push_back(static_cast<float>(power / std::sqrt(largest * smallest)));
  return factors;
}

// d^T H d for columns [first, first + count).
double group_error(const double* d, const float* products, int64_t columns, int64_t first, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    if (d[i] == 0) continue;
    const float* row = products + (first + i) * columns + first;
    double through = 0;
    for (int64_t j = 0; j < count; ++j) through += row[j] * d[j];
    sum += d[i] * through;
  }
  return sum;
}

}  // namespace

Tensor multiply_columns(const Tensor& weight, const std::vector<float>& factors) {
  return with_columns(weight, factors, [](float w, float f) { return w * f; });
}
Tensor divide_columns(const Tensor& weight, const std::vector<float>& factors) {
  return with_columns(weight, factors, [](float w, float f) { return w / f; });
}

AwqSearch search_awq_factors(const std::vector<Tensor>& weights, const InputStatistics& inputs,
                             const UniformScheme& scheme, int ratios) {
  require(ratios > 0 && !weights.empty(), "awq: expected matrices and at least one ratio");
  const std::vector<double> magnitudes = inputs.mean_magnitudes();
  AwqSearch best;
  best.loss = std::numeric_limits<double>::infinity();
  double outputs = 0;
  for (const auto& weight : weights) outputs += static_cast<double>(weight.rows());
  for (int i = 0; i < ratios; ++i) {
    const double ratio = static_cast<double>(i) / ratios;
    std::vector<float> factors = factors_of(magnitudes, ratio);
    double loss = 0;
    for (const auto& weight : weights) {
      const Tensor rounded = round_to_nearest(multiply_columns(weight, factors), scheme).dequantize();
      loss += output_error(weight, divide_columns(rounded, factors), inputs.products());
    }
    loss /= outputs * static_cast<double>(std::max<int64_t>(inputs.rows(), 1));
    best.losses.push_back(loss);
    if (!(loss < best.loss)) continue;
    best.loss = loss;
    best.ratio = ratio;
    best.factors = std::move(factors);
  }
  if (best.factors.empty()) best.factors.assign(static_cast<size_t>(inputs.columns()), 1.0f);
  return best;
}

Tensor search_awq_limits(const Tensor& weight, const InputStatistics& inputs, const UniformScheme& scheme) {
  constexpr int kGrid = 20, kTried = 10;
  const int64_t rows = weight.rows(), columns = weight.cols(), group = scheme.columns_per_group(columns);
  const int64_t groups = scheme.groups(columns);
  Tensor limits = Tensor::empty({rows, groups});
  const float *w = weight.data<float>(), *h = inputs.products().data<float>();
  float* out = limits.data<float>();
  parallel_for(rows * groups, 1, [&](int64_t begin, int64_t end) {
    std::vector<double> difference(static_cast<size_t>(group));
    for (int64_t item = begin; item < end; ++item) {
      const int64_t first = item % groups * group, count = std::min(group, columns - first);
      const float* values = w + item / groups * columns + first;
      const auto [lowest, highest] = std::minmax_element(values, values + count);
      const double largest = std::max(-double{*lowest}, double{*highest});
      double least = std::numeric_limits<double>::infinity();
      for (int attempt = 0; attempt < kTried; ++attempt) {
        // In double: what is cut lies half way between two codes as often as not.
        const double limit = largest * (1 - static_cast<double>(attempt) / kGrid);
        const auto cut = [&](double x) { return std::clamp(x, -limit, limit); };
        const BasicScale<double> scale = scale_of_range(cut(*lowest), cut(*highest), scheme);
        for (int64_t i = 0; i < count; ++i) {
          const double value = scale.value(scale.code(cut(values[i]), scheme.largest_code()));
          difference[static_cast<size_t>(i)] = value - values[i];
        }
        const double error = group_error(difference.data(), h, columns, first, count);
        if (!(error < least)) continue;
        least = error;
        out[item] = static_cast<float>(limit);
      }
    }
  });
  return limits;
}

Tensor limit_groups(const Tensor& weight, const Tensor& limits, const UniformScheme& scheme) {
  const int64_t columns = weight.cols(), group = scheme.columns_per_group(columns),
                groups = scheme.groups(columns);
  Tensor result = weight.clone();
  float* values = result.data<float>();
  const float* limit = limits.data<float>();
  for (int64_t r = 0; r < weight.rows(); ++r) {
    for (int64_t c = 0; c < columns; ++c) {
      const float most = limit[r * groups + c / group];
      values[r * columns + c] = std::clamp(values[r * columns + c], -most, most);
    }
  }
  return result;
}

std::vector<float> smoothquant_factors(const std::vector<Tensor>& weights, const InputStatistics& inputs,
                                       double alpha) {
  require(alpha >= 0 && alpha <= 1, "smoothquant: expected a strength of 0 to 1, found {}", alpha);
  std::vector<float> largest(static_cast<size_t>(inputs.columns()));
  for (const auto& weight : weights) {
    for (int64_t r = 0; r < weight.rows(); ++r) {
      for (int64_t c = 0; c < weight.cols(); ++c) {
        float& most = largest[static_cast<size_t>(c)];
        most = std::max(most, std::abs(weight.data<float>()[r * weight.cols() + c]));
      }
    }
  }
  constexpr double kSmallest = 1e-5;
  std::vector<float> factors;
  for (size_t c = 0; c < largest.size(); ++c) {
    const double x = inputs.largest_magnitudes()[c], w = largest[c];
    const double factor =
        x == 0 || w == 0 ? 1.0 : std::pow(x, alpha) / std::pow(std::max(w, kSmallest), 1 - alpha);
    factors.push_back(static_cast<float>(std::max(factor, kSmallest)));
  }
  return factors;
}

}  // namespace qkv
