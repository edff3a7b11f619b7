#include "qkv/quant/four_bit.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "qkv/core/error.h"
#include "qkv/core/parallel.h"

namespace qkv {
namespace {

// Published in bitsandbytes (functional.py): quantiles of the normal distribution, computed with SciPy.
constexpr std::array<float, 16> kNf4 = {
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};
// Sign, two bits of exponent, one of mantissa, divided by the largest, 12. Code 8 is zero, too.
constexpr std::array<float, 8> kFp4Magnitudes = {0,         0.0625f / 12, 8.0f / 12, 12.0f / 12,
                                                 4.0f / 12, 6.0f / 12,    2.0f / 12, 3.0f / 12};

// The positive values of bitsandbytes' map but for 1, as create_dynamic_map() computes them in PyTorch's f32
// arithmetic: seven decades, each with twice the values of the one below, means of neighbours on an even grid
// from 0.1 to 1. The negative ones mirror them.
constexpr std::array<float, 127> kDynamicMagnitudes = {
    5.50000038e-07f, 3.25000019e-06f, 7.7499999e-06f,  2.12499981e-05f, 4.37499984e-05f, 6.62500024e-05f,
    8.87499991e-05f, 0.000156250011f, 0.000268750038f, 0.000381250022f, 0.000493750034f, 0.000606250076f,
    0.00071875006f,  0.000831249985f, 0.000943750085f, 0.00128124992f,  0.00184375001f,  0.00240624999f,
    0.00296874996f,  0.00353124971f,  0.00409374991f,  0.00465624966f,  0.00521875033f,  0.00578125007f,
    0.00634374982f,  0.00690625003f,  0.00746874977f,  0.00803124998f,  0.00859375019f,  0.00915624946f,
    0.00971874967f,  0.0114062503f,   0.0142187504f,   0.0170312505f,   0.0198437497f,   0.0226562507f,
    0.0254687499f,   0.0282812472f,   0.0310937501f,   0.0339062475f,   0.0367187522f,   0.0395312496f,
    0.0423437469f,   0.0451562516f,   0.047968749f,    0.05078125f,     0.053593751f,    0.0564062484f,
    0.0592187531f,   0.0620312467f,   0.0648437515f,   0.0676562563f,   0.0704687461f,   0.0732812509f,
    0.0760937482f,   0.078906253f,    0.0817187428f,   0.0845312476f,   0.0873437524f,   0.0901562497f,
    0.0929687545f,   0.0957812443f,   0.0985937491f,   0.107031256f,    0.12109375f,     0.135156244f,
    0.149218753f,    0.163281247f,    0.177343741f,    0.19140625f,     0.205468744f,    0.219531253f,
    0.233593762f,    0.247656256f,    0.26171875f,     0.275781274f,    0.289843738f,    0.303906262f,
    0.317968726f,    0.33203125f,     0.346093714f,    0.360156238f,    0.374218762f,    0.388281226f,
    0.40234375f,     0.416406214f,    0.430468738f,    0.444531262f,    0.458593726f,    0.47265625f,
    0.486718774f,    0.500781238f,    0.514843762f,    0.528906226f,    0.54296875f,     0.557031274f,
    0.571093798f,    0.585156262f,    0.599218726f,    0.61328125f,     0.627343774f,    0.641406238f,
    0.655468762f,    0.669531286f,    0.68359375f,     0.697656274f,    0.711718798f,    0.725781262f,
    0.739843786f,    0.75390625f,     0.767968774f,    0.782031238f,    0.796093702f,    0.810156226f,
    0.82421875f,     0.838281214f,    0.852343738f,    0.866406202f,    0.880468726f,    0.89453125f,
    0.908593774f,    0.922656238f,    0.936718702f,    0.950781226f,    0.96484375f,     0.978906214f,
    0.992968738f};

std::array<float, 256> make_dynamic_map() {
  std::array<float, 256> map{};
  for (size_t i = 0; i < kDynamicMagnitudes.size(); ++i) {
    map[128 + i] = kDynamicMagnitudes[i];
    map[126 - i] = -kDynamicMagnitudes[i];
  }
  map[255] = 1;
  return map;
}

// A map in ascending order with the borders between neighbours.
struct SortedMap {
  std::vector<uint8_t> codes;
  std::vector<float> borders;

  explicit SortedMap(std::span<const float> map) : codes(map.size()) {
    std::iota(codes.begin(), codes.end(), uint8_t{0});
    std::stable_sort(codes.begin(), codes.end(), [&](uint8_t a, uint8_t b) { return map[a] < map[b]; });
    for (size_t i = 0; i + 1 < codes.size(); ++i)
      borders.push_back((map[codes[i]] + map[codes[i + 1]]) / 2.0f);
  }
  uint8_t nearest(float x) const {
    return codes[static_cast<size_t>(std::lower_bound(borders.begin(), borders.end(), x) - borders.begin())];
  }
};

}  // namespace

const std::array<float, 16>& nf4_values() {
  return kNf4;
}

const std::array<float, 16>& fp4_values() {
  static const std::array<float, 16> values = [] {
    std::array<float, 16> map{};
    for (size_t i = 0; i < kFp4Magnitudes.size(); ++i) {
      map[i] = kFp4Magnitudes[i];
      map[i + 8] = -kFp4Magnitudes[i];
    }
    return map;
  }();
  return values;
}

const std::array<float, 256>& dynamic_values() {
  static const std::array<float, 256> map = make_dynamic_map();
  return map;
}

BlockCodes quantize_blockwise(std::span<const float> values, int64_t block, std::span<const float> map) {
  require(block > 0, "blocks: expected at least 1 value in each, found {}", block);
  const SortedMap sorted(map);
  const auto n = static_cast<int64_t>(values.size()), blocks = (n + block - 1) / block;
  BlockCodes result;
  result.codes.resize(values.size());
  result.scales.resize(static_cast<size_t>(blocks));
  parallel_for(blocks, 16, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const auto first = static_cast<size_t>(b * block),
                 last = static_cast<size_t>(std::min(n, (b + 1) * block));
      float largest = 0;
      for (size_t i = first; i < last; ++i) largest = std::max(largest, std::abs(values[i]));
      result.scales[static_cast<size_t>(b)] = largest;
      const float inverse = largest == 0 ? 0.0f : 1.0f / largest;
      for (size_t i = first; i < last; ++i) {
        // The inverse of a subnormal number is infinite.
        const float scaled = values[i] == 0 ? 0.0f : values[i] * inverse;
        result.codes[i] = sorted.nearest(std::clamp(scaled, -1.0f, 1.0f));
      }
    }
  });
  return result;
}

std::vector<float> NestedScales::dequantize() const {
  std::vector<float> result(codes.size());
  for (size_t i = 0; i < codes.size(); ++i) {
    const float scaled = dynamic_values()[codes[i]] * scales[i / static_cast<size_t>(kDynamicBlock)];
    result[i] = scaled + offset;
  }
  return result;
}

NestedScales nest_scales(std::span<const float> scales) {
  NestedScales result;
  if (scales.empty()) return result;
  result.offset = static_cast<float>(std::accumulate(scales.begin(), scales.end(), 0.0) /
                                     static_cast<double>(scales.size()));
  std::vector<float> centered(scales.begin(), scales.end());
  for (float& scale : centered) scale -= result.offset;
  BlockCodes nested = quantize_blockwise(centered, kDynamicBlock, dynamic_values());
  result.codes = std::move(nested.codes);
  result.scales = std::move(nested.scales);
  return result;
}

std::vector<uint8_t> pack_nibbles(std::span<const uint8_t> codes) {
  std::vector<uint8_t> packed((codes.size() + 1) / 2);
  for (size_t i = 0; i < codes.size(); ++i)
    packed[i / 2] |= static_cast<uint8_t>(i % 2 == 0 ? codes[i] << 4 : codes[i]);
  return packed;
}

}  // namespace qkv
