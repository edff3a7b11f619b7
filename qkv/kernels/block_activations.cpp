// Plain rounding of activations to bytes. Compiled without contraction of a * b + c.
#include <algorithm>
#include <cmath>

#include "qkv/kernels/block_reference.h"

namespace qkv {
namespace {

// Of 32 values; NaN if any is not finite.
float scale_of(const float* x) {
  float largest = 0, nothing = 0;
  for (int i = 0; i < 32; ++i) {
    largest = std::max(largest, std::abs(x[i]));
    nothing += x[i] * 0.0f;
  }
  return largest / 127.0f + nothing;
}

void round_activations(const float* x, int64_t n, int8_t* codes, float* scales, float* sums16, float* sums32,
                       int32_t* code_sums16) {
  for (int64_t g = 0; g < n / 32; ++g) {
    const float scale = scale_of(x + 32 * g);
    const bool zeros = !(scale >= kLeastActivationScale);  // NaN, too
    const float inverse = 1.0f / scale;
    int32_t sums[2] = {};
    for (int64_t i = 0; i < 32; ++i) {
      codes[32 * g + i] = zeros ? int8_t{0} : static_cast<int8_t>(std::nearbyint(x[32 * g + i] * inverse));
      sums[i / 16] += codes[32 * g + i];
    }
    for (int64_t part = 0; part < 2; ++part) {
      code_sums16[2 * g + part] = sums[part];
      sums16[2 * g + part] = scale * static_cast<float>(sums[part]);
    }
    scales[g] = scale;
    sums32[g] = scale * static_cast<float>(sums[0] + sums[1]);
  }
}

}  // namespace

void add_reference_rounding(BlockKernels& table) {
  table.round_activations = round_activations;
}

}  // namespace qkv
