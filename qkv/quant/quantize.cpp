#include "qkv/quant/quantize.h"

#include <numeric>
#include <vector>

#include "qkv/core/error.h"
#include "qkv/quant/block_searches.h"

namespace qkv {
namespace {

// Columns that the calibration never used count a little all the same, so that their values are not thrown
// away.
std::vector<float> above_zero(const float* importance, int64_t cols) {
  std::vector<float> weights(importance, importance + cols);
  const double mean = std::accumulate(weights.begin(), weights.end(), 0.0) / static_cast<double>(cols);
  if (!(mean > 0)) return {};
  // Relative to their mean, so that squares of weights stay in range.
  for (float& w : weights) w = static_cast<float>(static_cast<double>(w) / mean + 1e-4);
  return weights;
}

}  // namespace

bool needs_importance(BlockType type) {
  switch (type) {
    case BlockType::iq1_s:
    case BlockType::iq1_m:
    case BlockType::iq2_xxs:
    case BlockType::iq2_xs:
    case BlockType::iq2_s:
    case BlockType::iq3_xxs:
      return true;
    default:
      return false;
  }
}

void quantize_rows(BlockType type, const float* x, int64_t rows, int64_t cols, const float* importance,
                   void* out) {
  const int64_t length = block_length(type);
  require(cols % length == 0, "quantize: expected rows of whole blocks of {} values, found rows of {}",
          length, cols);
  if (rows == 0 || cols == 0) return;
  std::vector<float> weights;
  if (importance != nullptr) weights = above_zero(importance, cols);
  const BlockSource source = {x, rows * cols / length, cols, weights.empty() ? nullptr : weights.data()};
  switch (type) {
    case BlockType::q8_1:
    case BlockType::q8_k:
      return kernels().blocks.quantize[type](x, out, rows * cols);
    case BlockType::q4_0:
    case BlockType::q4_1:
    case BlockType::q5_0:
    case BlockType::q5_1:
    case BlockType::q8_0:
    case BlockType::iq4_nl:
    case BlockType::mxfp4:
    case BlockType::tq1_0:
    case BlockType::tq2_0:
      return quantize_single_scale(type, source, out);
    case BlockType::q2_k:
    case BlockType::q3_k:
    case BlockType::q4_k:
    case BlockType::q5_k:
    case BlockType::q6_k:
    case BlockType::iq4_xs:
      return quantize_super_blocks(type, source, out);
    default:
      return quantize_grids(type, source, out);
  }
}

}  // namespace qkv
