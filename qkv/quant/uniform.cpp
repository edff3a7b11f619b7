#include "qkv/quant/uniform.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "qkv/core/error.h"
#include "qkv/core/parallel.h"

namespace qkv {
namespace {

// Half to even, without a call: adding 1.5 * 2^23 (2^52) leaves no bits for a fraction. Far below that in
// magnitude.
template <typename Real>
Real nearest_even(Real x) {
  constexpr Real kNoFraction = sizeof(Real) == sizeof(float) ? Real(12582912) : Real(6755399441055744);
  return (x + kNoFraction) - kNoFraction;
}

template <typename Real>
Real stored(Real scale, DType type) {
  if (type == DType::f32) return scale;
  // Beyond what the type holds the nearest that it does; never zero for values that are not.
  if (type == DType::f16) {
    constexpr Real kLargest = 65504, kSmallest = Real(0x1p-24);
    const float rounded = to_float(to_f16(static_cast<float>(std::clamp(scale, -kLargest, kLargest))));
    return rounded == 0 && scale != 0 ? std::copysign(kSmallest, scale) : rounded;
  }
  return to_float(to_bf16(static_cast<float>(scale)));
}

}  // namespace

template <typename Real>
BasicScale<Real> scale_of_range(Real lowest, Real highest, const UniformScheme& scheme) {
  const auto codes = static_cast<Real>(scheme.largest_code());
  const int middle = 1 << (scheme.bits - 1);
  constexpr Real kFar = 1e6;  // beyond every code
  switch (scheme.range) {
    case CodeRange::symmetric: {
      const Real a = std::max(std::abs(lowest), std::abs(highest));
      return {stored(2 * ((a == 0 ? 1 : a) / codes), scheme.scale_type), middle};
    }
    case CodeRange::asymmetric: {
      Real low = std::min(lowest, Real(0)), high = std::max(highest, Real(0));
      if (low == 0 && high == 0) low = -1, high = 1;
      const Real scale = stored((high - low) / codes, scheme.scale_type);
      return {scale,
              static_cast<int>(std::clamp(nearest_even(std::min(-low / scale, kFar)), Real(0), codes))};
    }
    case CodeRange::within: {
      const Real scale = stored(std::max(highest - lowest, Real(1e-5)) / codes, scheme.scale_type);
      const Real ratio = std::clamp(lowest / scale, -kFar, kFar);
      return {scale, static_cast<int>(std::clamp(-nearest_even(ratio), Real(0), codes))};
    }
  }
  return {};
}
template BasicScale<float> scale_of_range(float, float, const UniformScheme&);
template BasicScale<double> scale_of_range(double, double, const UniformScheme&);

void UniformScheme::require_valid() const {
  require(2 <= bits && bits <= 8, "rounding: expected 2 to 8 bits, found {}", bits);
  require(group >= 0, "rounding: expected groups of at least 1 column, found {}", group);
  require(!one_scale || group == 0, "rounding: expected no groups with one scale for the tensor, found {}",
          group);
  require(scale_type == DType::f32 || scale_type == DType::f16 || scale_type == DType::bf16,
          "rounding: expected scales in f32, f16 or bf16, found {}", name(scale_type));
}

template <typename Real>
int BasicScale<Real>::code(Real value, int largest) const {
  if (scale == 0) return zero;
  const Real steps = std::clamp(value / scale, Real(-65536), Real(65536));
  return std::clamp(static_cast<int>(nearest_even(steps)) + zero, 0, largest);
}
template struct BasicScale<float>;
template struct BasicScale<double>;

ScaleAndZero find_scale(std::span<const float> values, const UniformScheme& scheme) {
  float lowest = std::numeric_limits<float>::infinity(), highest = -lowest;
  for (const float x : values) {
    lowest = std::min(lowest, x);
    highest = std::max(highest, x);
  }
  if (values.empty()) lowest = highest = 0;
  return scale_of_range(lowest, highest, scheme);
}

CodedMatrix::CodedMatrix(int64_t rows, int64_t columns, const UniformScheme& scheme)
    : bits(scheme.bits),
      rows(rows),
      columns(columns),
      groups(scheme.groups(columns)),
      codes(static_cast<size_t>(rows * columns)),
      scales(static_cast<size_t>(rows * groups)),
      zeros(static_cast<size_t>(rows * groups)),
      group_of(static_cast<size_t>(columns)) {
  for (int64_t c = 0; c < columns; ++c)
    group_of[static_cast<size_t>(c)] = static_cast<int32_t>(c / scheme.columns_per_group(columns));
}

Tensor CodedMatrix::dequantize() const {
  Tensor result = Tensor::empty({rows, columns});
  float* out = result.data<float>();
  parallel_for(rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t c = 0; c < columns; ++c) {
        const int64_t at = row * columns + c;
        out[at] = scale(row, group_of[static_cast<size_t>(c)]).value(codes[static_cast<size_t>(at)]);
      }
    }
  });
  return result;
}

CodedMatrix round_to_nearest(const Tensor& weight, const UniformScheme& scheme) {
  scheme.require_valid();
  const int64_t rows = weight.rows(), columns = weight.cols(), group = scheme.columns_per_group(columns);
  CodedMatrix result(rows, columns, scheme);
  const float* values = weight.data<float>();
  const ScaleAndZero common = scheme.one_scale ? find_scale(weight.span<float>(), scheme) : ScaleAndZero();
  parallel_for(rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t first = 0; first < columns; first += group) {
        const auto count = static_cast<size_t>(std::min(group, columns - first));
        const std::span<const float> part(values + row * columns + first, count);
        const ScaleAndZero scale = scheme.one_scale ? common : find_scale(part, scheme);
        result.set_scale(row, first / group, scale);
        uint8_t* codes = &result.codes[static_cast<size_t>(row * columns + first)];
        for (size_t c = 0; c < count; ++c)
          codes[c] = static_cast<uint8_t>(scale.code(part[c], scheme.largest_code()));
      }
    }
  });
  return result;
}

void require_finite(const Tensor& values, std::string_view name) {
  const auto data = values.span<float>();
  const auto bad = std::find_if(data.begin(), data.end(), [](float x) { return !std::isfinite(x); });
  if (bad == data.end()) return;
  fail("tensor '{}': expected finite numbers, found {} at element {}", name, *bad, bad - data.begin());
}

}  // namespace qkv
