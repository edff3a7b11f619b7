#include "qkv/quant/input_statistics.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "qkv/core/error.h"
#include "qkv/core/parallel.h"
#include "qkv/tensor/gemm.h"

namespace qkv {

InputStatistics::InputStatistics(int64_t columns, bool with_products)
    : squares_(static_cast<size_t>(columns)),
      magnitudes_(static_cast<size_t>(columns)),
      largest_(static_cast<size_t>(columns)) {
  if (with_products) products_ = Tensor::zeros({columns, columns});
}

void InputStatistics::add(const Tensor& input) {
  const Tensor x = input.detach().to(DType::f32);
  const int64_t rows = x.rows(), n = columns();
  require(x.cols() == n, "calibration: expected inputs of {} columns, found {}", n, x.cols());
  if (rows == 0) return;
  rows_ += rows;
  const float* data = x.data<float>();
  parallel_for(n, 16, [&](int64_t begin, int64_t end) {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = begin; c < end; ++c) {
        const float magnitude = std::abs(data[r * n + c]);
        const auto at = static_cast<size_t>(c);
        squares_[at] += double{magnitude} * magnitude;
        magnitudes_[at] += magnitude;
        largest_[at] = std::max(largest_[at], magnitude);
      }
    }
  });
  if (!has_products()) return;
  gemm(n, n, rows, {data, DType::f32, n, true}, {data, DType::f32, n, false}, products_.raw(), DType::f32, n,
       true);
}

std::vector<double> InputStatistics::mean_magnitudes() const {
  std::vector<double> means = magnitudes_;
  for (double& mean : means) mean /= static_cast<double>(std::max<int64_t>(rows_, 1));
  return means;
}

void InputStatistics::divide_columns(const std::vector<float>& factors) {
  const int64_t n = columns();
  for (int64_t c = 0; c < n; ++c) {
    const auto at = static_cast<size_t>(c);
    squares_[at] /= double{factors[at]} * factors[at];
    magnitudes_[at] /= factors[at];
    largest_[at] /= factors[at];
  }
  if (!has_products()) return;
  products_ = products_.clone();  // copies of these statistics share it
  float* h = products_.data<float>();
  parallel_for(n, 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      for (int64_t c = 0; c < n; ++c)
        h[r * n + c] /= factors[static_cast<size_t>(r)] * factors[static_cast<size_t>(c)];
  });
}

void InputStatistics::require_finite(const std::string& where) const {
  const double sum = std::accumulate(squares_.begin(), squares_.end(), 0.0);
  require(std::isfinite(sum), "{}: expected finite activations during calibration, found some that are not",
          where);
}

double output_error(const Tensor& a, const Tensor& b, const Tensor& products) {
  const int64_t rows = a.rows(), n = a.cols();
  Tensor difference = Tensor::empty({rows, n}), through = Tensor::empty({rows, n});
  const float *x = a.data<float>(), *y = b.data<float>();
  float* d = difference.data<float>();
  for (int64_t i = 0; i < rows * n; ++i) d[i] = x[i] - y[i];
  gemm(rows, n, n, {d, DType::f32, n, false}, {products.raw(), DType::f32, n, false}, through.raw(),
       DType::f32, n, false);
  const float* t = through.data<float>();
  double sum = 0;
  for (int64_t i = 0; i < rows * n; ++i) sum += double{d[i]} * t[i];
  return sum;
}

}  // namespace qkv
