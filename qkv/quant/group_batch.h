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

// Whether larger values weigh more than the importance of their column says.
enum class Magnitudes : uint8_t { ignored, without_importances, always };

// The weights of `count` values of one block: their columns' importances, times 1 + |x| / rms where
// magnitudes count. Larger values stand where the model makes more of its inputs: at few bits, of two
// quantizations with the same squared error the one that is better at large values diverges less
// (docs/decisions.md).
inline void block_weights(const float* x, int count, const float* importance, Magnitudes magnitudes,
                          float* w) {
  if (importance != nullptr && magnitudes != Magnitudes::always) {
    std::copy_n(importance, count, w);
    return;
  }
  float squares = 0;
  for (int i = 0; i < count; ++i) squares += x[i] * x[i];
  const float inverse = squares > 1e-30f ? 1.0f / std::sqrt(squares / static_cast<float>(count)) : 0.0f;
  for (int i = 0; i < count; ++i) w[i] = 1.0f + std::abs(x[i]) * inverse;
  if (importance == nullptr) return;
  for (int i = 0; i < count; ++i) w[i] *= importance[i];
}

// `count` <= kGroupLanes groups of n values from value `first` of the source on, lanes side by side; lanes
// that have no group are 0.
class GroupBatch {
 public:
  // Groups of n values, `per_block` of them in a block.
  GroupBatch(const BlockSource& source, int n, int per_block, Magnitudes magnitudes)
      : source_(source),
        n_(n),
        per_block_(per_block),
        magnitudes_(magnitudes),
        weighted_(magnitudes != Magnitudes::ignored || source.importance != nullptr),
        x_(static_cast<size_t>(n) * kGroupLanes),
        w_(weighted_ ? x_.size() : 0),
        block_(static_cast<size_t>(n * per_block)) {}

  // `count` groups from value `first` of the source on.
  void load(int64_t first, int count) {
    if (count < kGroupLanes) {
      std::fill(x_.begin(), x_.end(), 0.0f);
      std::fill(w_.begin(), w_.end(), 0.0f);
    }
    place(source_.x + first, 0, count, x_.data());
    if (!weighted_) return;
    const int block = n_ * per_block_;
    for (int g = 0; g < count; g += per_block_) {
      const int64_t at = first + int64_t{g} * n_;
      // A row is a whole number of blocks, so a block never wraps around.
      const float* importance =
          source_.importance == nullptr ? nullptr : source_.importance + at % source_.cols;
      block_weights(source_.x + at, block, importance, magnitudes_, block_.data());
      place(block_.data(), g, per_block_, w_.data());
    }
  }

  int n() const { return n_; }
  const float* x() const { return x_.data(); }
  const float* w() const { return weighted_ ? w_.data() : nullptr; }

 private:
  // Groups one after the other to lanes from `lane` on.
  void place(const float* from, int lane, int count, float* to) const {
    for (int i = 0; i < n_; ++i) {
      for (int g = 0; g < count; ++g) to[i * kGroupLanes + lane + g] = from[g * n_ + i];
    }
  }

  const BlockSource& source_;
  int n_, per_block_;
  Magnitudes magnitudes_;
  bool weighted_;
  std::vector<float> x_, w_;
  std::vector<float> block_;  // weights of one block
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
