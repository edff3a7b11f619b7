#include "qkv/quant/scaled_fp8.h"

#include <algorithm>
#include <cmath>

#include "qkv/core/error.h"
#include "qkv/core/parallel.h"

namespace qkv {
namespace {

struct Format {
  int mantissa_bits, bias;
  float largest;
  uint8_t largest_bits, nan_bits;
};
constexpr Format kE4m3 = {3, 7, 448.0f, 0x7E, 0x7F};
constexpr Format kE5m2 = {2, 15, 57344.0f, 0x7B, 0x7F};

const Format& format_of(DType type) {
  require(type == DType::f8_e4m3 || type == DType::f8_e5m2,
          "8-bit floating point: expected f8_e4m3 or f8_e5m2, found {}", name(type));
  return type == DType::f8_e4m3 ? kE4m3 : kE5m2;
}

uint8_t encode(float x, const Format& format) {
  const uint8_t sign = std::signbit(x) ? 0x80 : 0;
  if (std::isnan(x)) return static_cast<uint8_t>(sign | format.nan_bits);
  const float magnitude = std::abs(x);
  if (magnitude == 0) return sign;
  if (magnitude >= format.largest) return static_cast<uint8_t>(sign | format.largest_bits);
  // The distance between neighbours around x; below the smallest normal number it is that of the subnormal
  // ones.
  int exponent = 0;
  std::frexp(magnitude, &exponent);  // magnitude in [2^(exponent - 1), 2^exponent)
  const int lowest = 1 - format.bias;
  const int floor_exponent = std::max(exponent - 1, lowest);
  const float step = std::ldexp(1.0f, floor_exponent - format.mantissa_bits);
  // Steps from 2^floor_exponent's predecessor grid: rounding up past a power of two carries into the exponent
  // by itself.
  const auto steps = static_cast<int>(std::nearbyint(magnitude / step));
  const int bits = ((floor_exponent - lowest) << format.mantissa_bits) + steps;
  return static_cast<uint8_t>(sign | std::min<int>(bits, format.largest_bits));
}

}  // namespace

uint8_t to_fp8(float x, DType type) {
  return encode(x, format_of(type));
}

Fp8Matrix quantize_fp8(const Tensor& weight, DType type, int64_t block_rows, int64_t block_columns) {
  const Format& format = format_of(type);
  const int64_t rows = weight.rows(), columns = weight.cols();
  const int64_t height = block_rows > 0 ? block_rows : std::max<int64_t>(rows, 1);
  const int64_t width = block_columns > 0 ? block_columns : std::max<int64_t>(columns, 1);
  const int64_t down = (rows + height - 1) / height, across = (columns + width - 1) / width;
  Fp8Matrix result{Tensor::empty({rows, columns}, type), Tensor::empty({down, across})};
  const float* values = weight.data<float>();
  auto* codes = reinterpret_cast<uint8_t*>(result.values.raw());
  float* scales = result.scales.data<float>();
  parallel_for(down * across, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const int64_t first_row = b / across * height, last_row = std::min(rows, first_row + height);
      const int64_t first = b % across * width, last = std::min(columns, first + width);
      float largest = 0;
      for (int64_t r = first_row; r < last_row; ++r)
        for (int64_t c = first; c < last; ++c) largest = std::max(largest, std::abs(values[r * columns + c]));
      const float scale = largest == 0 ? 1.0f : std::max(largest / format.largest, 0x1p-126f);
      scales[b] = scale;
      for (int64_t r = first_row; r < last_row; ++r)
        for (int64_t c = first; c < last; ++c)
          codes[r * columns + c] = encode(values[r * columns + c] / scale, format);
    }
  });
  return result;
}

}  // namespace qkv
