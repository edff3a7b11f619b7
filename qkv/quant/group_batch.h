// kGroupLanes groups on their way through the search kernels, and the pieces that all searches share.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

#include "qkv/kernels/quantize_kernels.h"
#include "qkv/kernels/scalar_types.h"

namespace qkv {

// What a searching quantizer is given: consecutive blocks of rows, as one line of values.
struct BlockSource {
  const float* x;
  int64_t blocks;
  int64_t cols;             // of a row, for the importances
  const float* importance;  // (cols) or null
};

// `count` <= kGroupLanes groups of n values from value `first` of the source on, lanes side by side; lanes
// that have no group are 0.
class GroupBatch {
 public:
  explicit GroupBatch(int n, bool weighted)
      : n_(n), x_(static_cast<size_t>(n) * kGroupLanes), w_(weighted ? x_.size() : 0) {}

  void load(const BlockSource& source, int64_t first, int count) {
    if (count < kGroupLanes) {
      std::fill(x_.begin(), x_.end(), 0.0f);
      std::fill(w_.begin(), w_.end(), 0.0f);
    }
    place(source.x + first, count, n_, x_.data());
    if (w_.empty()) return;
    // A row is a whole number of groups, so a group never wraps around.
    for (int g = 0; g < count; ++g) {
      const float* weights = source.importance + (first + int64_t{g} * n_) % source.cols;
      for (int i = 0; i < n_; ++i) w_[static_cast<size_t>(i * kGroupLanes + g)] = weights[i];
    }
  }

  int n() const { return n_; }
  const float* x() const { return x_.data(); }
  const float* w() const { return w_.empty() ? nullptr : w_.data(); }

 private:
  static void place(const float* from, int count, int n, float* to) {
    for (int i = 0; i < n; ++i) {
      for (int g = 0; g < count; ++g) to[i * kGroupLanes + g] = from[g * n + i];
    }
  }

  int n_;
  std::vector<float> x_, w_;
};

using GroupFloats = std::array<float, kGroupLanes>;
using GroupInts = std::array<int32_t, kGroupLanes>;

// The nearest f16, never infinite, and never minus zero.
inline f16 finite_f16(float value) {
  constexpr float kMost = 65504;
  return to_f16(std::clamp(value, -kMost, kMost) + 0.0f);
}
inline float rounded_to_f16(float value) {
  return to_float(finite_f16(value));
}
inline int nearest_int(float value) {
  return static_cast<int>(std::nearbyint(value));
}

// The codes of `count` groups from lane `first` on, in the order of the values.
inline void take_codes(const int8_t* lanes, int n, int first, int count, int8_t* codes) {
  for (int g = 0; g < count; ++g) {
    for (int i = 0; i < n; ++i) codes[g * n + i] = lanes[i * kGroupLanes + first + g];
  }
}

}  // namespace qkv
