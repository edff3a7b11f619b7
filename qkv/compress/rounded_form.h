// What a matrix becomes in another type, as values: quantized row by row and dequantized again. The error of
// that is what reports show, and what whoever chooses types compares.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "qkv/quant/input_statistics.h"
#include "qkv/tensor/tensor.h"

namespace qkv {

// A type that values can be rounded to: GGUF's block types, bf16 and f16, and
//   f8_e4m3, f8_e5m2   with a scale per row
//   nf4                with a scale per 64 values
//   int8               symmetric, with a scale per row
//   int4               symmetric, with a scale per 128 values of a row
class RoundedForm {
 public:
  // By its name, upper or lower case; fp8 is f8_e4m3. Error naming all and the nearest.
  explicit RoundedForm(std::string_view name);

  const std::string& name() const { return name_; }
  // With the scales, of rows of so many columns.
  double bits_per_weight(int64_t columns) const;
  // Why rows of so many columns cannot be stored so, or empty.
  std::string refusal(int64_t columns) const;
  // x (rows, columns), finite and at most kMostQuantizable in magnitude, to `out`, on the calling thread.
  // Block types weigh squared errors by `importance` (columns) unless it is null. x and out do not overlap.
  void round_rows(const float* x, int64_t rows, int64_t columns, const float* importance, float* out) const;
  // The same for a matrix, f32, in parallel.
  Tensor round(const Tensor& matrix, const float* importance) const;

 private:
  enum class Kind : uint8_t { block, plain, fp8, nf4, integer };
  std::string name_;
  Kind kind_ = Kind::block;
  DType type_ = DType::f32;
  int bits_ = 0;       // integer
  int64_t group_ = 0;  // integer: columns with a scale of their own, 0: the row
};

// Of "q4_k,nf4".
std::vector<RoundedForm> rounded_forms(std::string_view list);

// Sums over a matrix W and what it became, W'. Those of matrices that are stored together are added.
struct RoundingError {
  double squared = 0, energy = 0;  // |W - W'|^2 and |W|^2
  double output_squared = 0,
         output_energy = 0;  // |(W - W') x|^2 and |W x|^2, summed over inputs; 0 without inputs

  void add(const RoundingError& other);
  // Relative root mean squares; 0 of 0 is 0.
  double relative() const;
  double relative_output() const;
};

// weight, rounded (rows, columns) f32. `inputs` is null or has the second moments of what the matrix
// multiplies: with products the outputs' error is exact, without them it is that of independent inputs.
RoundingError rounding_error(const Tensor& weight, const Tensor& rounded, const InputStatistics* inputs);

}  // namespace qkv
