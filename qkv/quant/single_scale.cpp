// Blocks with one scale, or a scale and an offset, as f16 (mxfp4: as a power of two).
//
// A first scale comes from the search; then the best scale for its codes, the codes for that scale as f16
// rounds it, and so on; of all the scales met on the way the one with the least error stays. In the end the
// block is made as long as its values are (group_batch.h), but where scales are powers of two.
#include "qkv/kernels/block_reference.h"
#include "qkv/quant/block_searches.h"
#include "qkv/quant/pack_blocks.h"

namespace qkv {
namespace {

constexpr int kRounds = 1;  // of codes for a scale, then a scale for the codes

// Candidates side by side, as the kernels want them.
template <int count>
using Candidates = std::array<float, static_cast<size_t>(count) * kGroupLanes>;

template <class Block>
struct ScaleRule;
template <>
struct ScaleRule<BlockQ4_0> {
  static constexpr Levels levels = {Levels::Kind::linear, -8, 7};
  static constexpr SearchSteps steps = {-0.9f, 0.3f, 7};
};
template <>
struct ScaleRule<BlockQ5_0> {
  static constexpr Levels levels = {Levels::Kind::linear, -16, 15};
  static constexpr SearchSteps steps = {-0.9f, 0.3f, 7};
};
template <>
struct ScaleRule<BlockQ8_0> {
  static constexpr Levels levels = {Levels::Kind::linear, -127, 127};
  static constexpr SearchSteps steps = {0, 0, 1};
};
template <>
struct ScaleRule<BlockIq4Nl> {
  static constexpr Levels levels = {Levels::Kind::iq4, 0, 0};
  static constexpr SearchSteps steps = {-24, 3, 14, true};
};
// The extreme value is mapped to -1 (what makes ternary weights exact) and far beyond (what suits normal
// ones).
template <>
struct ScaleRule<BlockTq1_0> {
  static constexpr Levels levels = {Levels::Kind::linear, -1, 1};
  static constexpr SearchSteps steps = {0, 0.2f, 21};
};
template <>
struct ScaleRule<BlockTq2_0> : ScaleRule<BlockTq1_0> {};

template <class Block>
void search_scales(const GroupBatch& batch, int8_t* codes, GroupFloats& scale) {
  using Rule = ScaleRule<Block>;
  const QuantizeKernels& k = quantize_kernels();
  constexpr int kCandidates =
      4;  // the scale so far, the one that its codes ask for, and that one's neighbours
  GroupSums sums;
  GroupFloats error;
  GroupInts best;
  Candidates<4> candidates;  // and that one's neighbours, which are not tried
  k.fit_scale(batch.x(), batch.w(), batch.n(), Rule::levels, Rule::steps, scale.data());
  k.nearest_f16(scale.data(), candidates.data());
  std::copy_n(candidates.begin(), scale.size(), scale.begin());
  for (int round = 0; round < kRounds; ++round) {
    k.encode_scale(batch.x(), batch.w(), batch.n(), Rule::levels, scale.data(), codes, &sums);
    std::copy(scale.begin(), scale.end(), candidates.begin());
    GroupFloats wanted;
    for (size_t g = 0; g < kGroupLanes; ++g) wanted[g] = sums.ll[g] > 0 ? sums.xl[g] / sums.ll[g] : scale[g];
    k.nearest_f16(wanted.data(), candidates.data() + kGroupLanes);
    k.pick_scale(batch.x(), batch.w(), batch.n(), Rule::levels, kCandidates, candidates.data(), best.data(),
                 error.data());
    for (size_t g = 0; g < kGroupLanes; ++g)
      scale[g] = candidates[static_cast<size_t>(best[g]) * kGroupLanes + g];
  }
  k.encode_scale(batch.x(), batch.w(), batch.n(), Rule::levels, scale.data(), codes, &sums);
  for (size_t g = 0; g < kGroupLanes; ++g) {
    const double value = static_cast<double>(scale[g]);
    scale[g] = static_cast<float>(
        value * lengthening(static_cast<double>(sums.xx[g]), value * static_cast<double>(sums.xl[g])));
  }
}

template <class Block>
void quantize_scaled(const BlockSource& source, Block* out) {
  constexpr int n = static_cast<int>(Block::length);
  GroupBatch batch(source, n, 1);
  std::vector<int8_t> lanes(static_cast<size_t>(n) * kGroupLanes);
  int8_t codes[n];
  for (int64_t first = 0; first < source.blocks; first += kGroupLanes) {
    const int count = static_cast<int>(std::min<int64_t>(kGroupLanes, source.blocks - first));
    batch.load(first * n, count);
    GroupFloats scale;
    search_scales<Block>(batch, lanes.data(), scale);
    for (int g = 0; g < count; ++g) {
      out[first + g].d = finite_f16(scale[static_cast<size_t>(g)]);
      take_codes(lanes.data(), n, g, 1, codes);
      pack_codes(codes, out[first + g]);
    }
  }
}

template <class Block>
void quantize_with_offset(const BlockSource& source, Block* out, int most) {
  constexpr int n = static_cast<int>(Block::length);
  constexpr SearchSteps steps = {-0.9f, 0.3f, 7};
  const QuantizeKernels& k = quantize_kernels();
  GroupBatch batch(source, n, 1);
  std::vector<int8_t> lanes(static_cast<size_t>(n) * kGroupLanes);
  int8_t codes[n];
  for (int64_t first = 0; first < source.blocks; first += kGroupLanes) {
    const int count = static_cast<int>(std::min<int64_t>(kGroupLanes, source.blocks - first));
    batch.load(first * n, count);
    // Candidate 0 is the best so far, 1 what its codes ask for.
    Candidates<2> scales{}, offsets{};
    GroupSums sums;
    k.fit_affine(batch.x(), batch.w(), n, most, false, steps, scales.data(), offsets.data());
    for (size_t g = 0; g < kGroupLanes; ++g) {
      scales[g] = rounded_to_f16(scales[g]);
      offsets[g] = rounded_to_f16(offsets[g]);
    }
    for (int round = 0; round < kRounds; ++round) {
      k.encode_affine(batch.x(), batch.w(), n, most, scales.data(), offsets.data(), lanes.data(), &sums);
      for (size_t g = 0; g < kGroupLanes; ++g) {
        const float determinant = sums.one[g] * sums.ll[g] - sums.l[g] * sums.l[g];
        const bool solvable = determinant > 0;
        const size_t other = kGroupLanes + g;
        scales[other] = rounded_to_f16(
            solvable ? (sums.one[g] * sums.xl[g] - sums.x[g] * sums.l[g]) / determinant : scales[g]);
        // The offset that goes with the scale as it is stored.
        offsets[other] =
            rounded_to_f16(solvable ? (sums.x[g] - scales[other] * sums.l[g]) / sums.one[g] : offsets[g]);
      }
      GroupInts best;
      GroupFloats error;
      k.pick_affine(batch.x(), batch.w(), n, most, 2, scales.data(), offsets.data(), best.data(),
                    error.data());
      for (size_t g = 0; g < kGroupLanes; ++g) {
        const size_t chosen = static_cast<size_t>(best[g]) * kGroupLanes + g;
        scales[g] = scales[chosen];
        offsets[g] = offsets[chosen];
      }
    }
    k.encode_affine(batch.x(), batch.w(), n, most, scales.data(), offsets.data(), lanes.data(), &sums);
    for (size_t g = 0; g < kGroupLanes; ++g) {
      const auto scale = static_cast<double>(scales[g]), offset = static_cast<double>(offsets[g]);
      const double factor =
          lengthening(static_cast<double>(sums.xx[g]),
                      scale * static_cast<double>(sums.xl[g]) + offset * static_cast<double>(sums.x[g]));
      scales[g] = static_cast<float>(factor * scale);
      offsets[g] = static_cast<float>(factor * offset);
    }
    for (int g = 0; g < count; ++g) {
      out[first + g].d = finite_f16(scales[static_cast<size_t>(g)]);
      out[first + g].m = finite_f16(offsets[static_cast<size_t>(g)]);
      take_codes(lanes.data(), n, g, 1, codes);
      pack_codes(codes, out[first + g]);
    }
  }
}

// Powers of two: the one that just holds the largest value, and its neighbours.
void quantize_mxfp4(const BlockSource& source, BlockMxfp4* out) {
  constexpr int n = static_cast<int>(kSmallBlock), kCandidates = 3;
  constexpr Levels levels = {Levels::Kind::mxfp4, 0, 0};
  const QuantizeKernels& k = quantize_kernels();
  GroupBatch batch(source, n, 1);
  std::vector<int8_t> lanes(static_cast<size_t>(n) * kGroupLanes);
  int8_t codes[n];
  for (int64_t first = 0; first < source.blocks; first += kGroupLanes) {
    const int count = static_cast<int>(std::min<int64_t>(kGroupLanes, source.blocks - first));
    batch.load(first * n, count);
    std::array<std::array<uint8_t, kGroupLanes>, kCandidates> exponents;
    Candidates<kCandidates> scales;
    for (size_t g = 0; g < kGroupLanes; ++g) {
      float largest = 0;
      for (int i = 0; i < n; ++i)
        largest = std::max(largest, std::abs(batch.x()[static_cast<size_t>(i * kGroupLanes) + g]));
      // The largest E2M1 value is 6 = 1.5 * 2^2; exponents are biased by 127.
      const int exponent = largest > 0 ? std::ilogb(largest) - 2 + 127 : 0;
      for (int c = 0; c < kCandidates; ++c) {
        const auto e =
            static_cast<uint8_t>(std::clamp(exponent + (c + 1) / 2 * (c % 2 == 1 ? 1 : -1), 0, 254));
        exponents[static_cast<size_t>(c)][g] = e;
        scales[static_cast<size_t>(c * kGroupLanes) + g] = mxfp4_scale(e);
      }
    }
    GroupInts best;
    GroupFloats error, scale;
    k.pick_scale(batch.x(), batch.w(), n, levels, kCandidates, scales.data(), best.data(), error.data());
    for (size_t g = 0; g < kGroupLanes; ++g)
      scale[g] = scales[static_cast<size_t>(best[g]) * kGroupLanes + g];
    k.encode_scale(batch.x(), batch.w(), n, levels, scale.data(), lanes.data(), nullptr);
    for (int g = 0; g < count; ++g) {
      out[first + g].e = exponents[static_cast<size_t>(best[static_cast<size_t>(g)])][static_cast<size_t>(g)];
      take_codes(lanes.data(), n, g, 1, codes);
      pack_codes(codes, out[first + g]);
    }
  }
}

}  // namespace

void quantize_single_scale(BlockType type, const BlockSource& source, void* out) {
  switch (type) {
    case BlockType::q4_0:
      return quantize_scaled(source, static_cast<BlockQ4_0*>(out));
    case BlockType::q5_0:
      return quantize_scaled(source, static_cast<BlockQ5_0*>(out));
    case BlockType::q8_0:
      return quantize_scaled(source, static_cast<BlockQ8_0*>(out));
    case BlockType::iq4_nl:
      return quantize_scaled(source, static_cast<BlockIq4Nl*>(out));
    case BlockType::tq1_0:
      return quantize_scaled(source, static_cast<BlockTq1_0*>(out));
    case BlockType::tq2_0:
      return quantize_scaled(source, static_cast<BlockTq2_0*>(out));
    case BlockType::q4_1:
      return quantize_with_offset(source, static_cast<BlockQ4_1*>(out), 15);
    case BlockType::q5_1:
      return quantize_with_offset(source, static_cast<BlockQ5_1*>(out), 31);
    default:
      return quantize_mxfp4(source, static_cast<BlockMxfp4*>(out));
  }
}

}  // namespace qkv
