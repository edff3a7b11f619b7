// Weights as evenly spaced values, value = scale * (code - zero), with a scale and a zero point for the
// tensor, each row or each group of columns in a row: what round-to-nearest, GPTQ, AWQ and compressed-tensors
// store.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "qkv/tensor/tensor.h"

namespace qkv {

// Which values the 2^bits codes cover.
enum class CodeRange : uint8_t {
  symmetric,   // [-a, a] with a the largest magnitude: scale 2 a / (2^bits - 1), zero 2^(bits - 1) (GPTQ)
  asymmetric,  // [min(w, 0), max(w, 0)]: zero has a code (GPTQ)
  within,      // [min w, max w], where zero need not lie; the zero point is cut to a code (AWQ)
};

struct UniformScheme {
  int bits = 4;  // 2 to 8
  CodeRange range = CodeRange::symmetric;
  int64_t group = 128;     // columns that share a scale; the last group may be shorter. 0: the whole row
  bool one_scale = false;  // of the whole tensor; group is 0
  // The type in which scales are stored: codes are chosen for the scales as they will be read.
  DType scale_type = DType::f32;

  int largest_code() const { return (1 << bits) - 1; }
  // Error unless the settings mean something; `columns` of a row.
  void require_valid() const;
  int64_t columns_per_group(int64_t columns) const { return group == 0 ? columns : group; }
  int64_t groups(int64_t columns) const {
    return (columns + columns_per_group(columns) - 1) / columns_per_group(columns);
  }
};

// In float, as readers compute, or in double.
template <typename Real>
struct BasicScale {
  Real scale = 0;
  int zero = 0;

  // Rounded half to even.
  int code(Real value, int largest) const;
  Real value(int code) const { return scale * static_cast<Real>(code - zero); }
};
using ScaleAndZero = BasicScale<float>;

// The scale for values from `lowest` to `highest`. Values that are not finite give nonsense, not a crash: see
// require_finite().
template <typename Real>
BasicScale<Real> scale_of_range(Real lowest, Real highest, const UniformScheme& scheme);
ScaleAndZero find_scale(std::span<const float> values, const UniformScheme& scheme);

// A matrix of codes.
struct CodedMatrix {
  int bits = 4;
  int64_t rows = 0, columns = 0, groups = 0;
  std::vector<uint8_t> codes;     // (rows, columns)
  std::vector<float> scales;      // (rows, groups)
  std::vector<uint8_t> zeros;     // (rows, groups)
  std::vector<int32_t> group_of;  // (columns): the group of each

  CodedMatrix() = default;
  CodedMatrix(int64_t rows, int64_t columns, const UniformScheme& scheme);
  void set_scale(int64_t row, int64_t group, ScaleAndZero scale) {
    scales[static_cast<size_t>(row * groups + group)] = scale.scale;
    zeros[static_cast<size_t>(row * groups + group)] = static_cast<uint8_t>(scale.zero);
  }
  ScaleAndZero scale(int64_t row, int64_t group) const {
    return {scales[static_cast<size_t>(row * groups + group)],
            zeros[static_cast<size_t>(row * groups + group)]};
  }
  // (rows, columns) f32.
  Tensor dequantize() const;
};

// Every value to the nearest. weight (rows, columns) f32.
CodedMatrix round_to_nearest(const Tensor& weight, const UniformScheme& scheme);

// Error `tensor '<name>': ...` naming the first element that is no finite number.
void require_finite(const Tensor& values, std::string_view name);

}  // namespace qkv
