// What calibration keeps of the inputs of a linear layer. The output error of a changed weight, sum over
// inputs x of
// |(W - W') x|^2 = trace((W - W') H (W - W')^T) with H = sum x x^T, needs nothing else, however many inputs
// there were.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "qkv/tensor/tensor.h"

namespace qkv {

class InputStatistics {
 public:
  // Of inputs with so many columns. Without `with_products` only what is one number per column is kept.
  InputStatistics(int64_t columns, bool with_products);

  // x (T, columns), f32 or bf16.
  void add(const Tensor& x);
  int64_t columns() const { return static_cast<int64_t>(squares_.size()); }
  int64_t rows() const { return rows_; }
  bool has_products() const { return products_.defined(); }
  // H (columns, columns) f32. Its diagonal is kept in double by itself: squares().
  const Tensor& products() const { return products_; }
  const std::vector<double>& squares() const { return squares_; }
  std::vector<double> mean_magnitudes() const;
  const std::vector<float>& largest_magnitudes() const { return largest_; }
  // As if every column had been divided by its factor.
  void divide_columns(const std::vector<float>& factors);
  // Error `<where>: ...` if some input was no finite number.
  void require_finite(const std::string& where) const;

 private:
  int64_t rows_ = 0;
  Tensor products_;
  std::vector<double> squares_, magnitudes_;
  std::vector<float> largest_;
};

// trace(D H D^T) for D = a - b, both (rows, columns): the squared output error of b in place of a, summed
// over all inputs.
double output_error(const Tensor& a, const Tensor& b, const Tensor& products);

}  // namespace qkv
