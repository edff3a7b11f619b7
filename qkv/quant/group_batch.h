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

// By how much a quantized block is made longer, for sum w x^2 and sum w x value of it. Scales and codes with
// the least error are shorter than what they stand for (their error is orthogonal to them), and that part of
// the error is not noise: it shrinks the outputs of every layer alike, and adds up through them. Made longer
// by this, a block's error is orthogonal to the weights themselves (docs/decisions.md).
inline double lengthening(double values, double products) {
  constexpr double kMost = 2;  // a block of which next to nothing is left
  return products > 0 ? std::clamp(values / products, 1 / kMost, kMost) : 1;
}

// `count` <= kGroupLanes groups of n values from value `first` of the source on, lanes side by side; lanes
// that have no group are 0.
class GroupBatch {
 public:
  // Groups of n values, `per_block` of them in a block.
  GroupBatch(const BlockSource& source, int n, int per_block)
      : source_(source),
        n_(n),
        per_block_(per_block),
        x_(static_cast<size_t>(n) * kGroupLanes),
        w_(source.importance != nullptr ? x_.size() : 0) {}

  // `count` groups from value `first` of the source on.
  void load(int64_t first, int count) {
    if (count < kGroupLanes) {
      std::fill(x_.begin(), x_.end(), 0.0f);
      std::fill(w_.begin(), w_.end(), 0.0f);
    }
    place(source_.x + first, 0, count, x_.data());
    if (source_.importance == nullptr) return;
    // A row is a whole number of blocks, so a block never wraps around.
    for (int g = 0; g < count; g += per_block_) {
      place(source_.importance + (first + int64_t{g} * n_) % source_.cols, g, per_block_, w_.data());
    }
  }

  int n() const { return n_; }
  const float* x() const { return x_.data(); }
  const float* w() const { return w_.empty() ? nullptr : w_.data(); }

 private:
  // Groups one after the other to lanes from `lane` on.
  void place(const float* from, int lane, int count, float* to) const {
    for (int i = 0; i < n_; ++i) {
      for (int g = 0; g < count; ++g) to[i * kGroupLanes + lane + g] = from[g * n_ + i];
    }
  }

  const BlockSource& source_;
  int n_, per_block_;
  std::vector<float> x_, w_;  // no weights without importances
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
// Ties to even, for |value| < 2^22.
inline int nearest_int(float value) {
  constexpr float kShifter = 12582912.0f;  // 1.5 * 2^23
  return static_cast<int>((value + kShifter) - kShifter);
}

// The codes of `count` groups from lane `first` on, in the order of the values.
inline void take_codes(const int8_t* lanes, int n, int first, int count, int8_t* codes) {
  for (int g = 0; g < count; ++g) {
    for (int i = 0; i < n; ++i) codes[g * n + i] = lanes[i * kGroupLanes + first + g];
  }
}

}  // namespace qkv
