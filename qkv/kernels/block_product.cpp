// Plain products of rows of blocks with float activations.
#include "qkv/kernels/block_reference.h"

namespace qkv {
namespace {

// Sums that the compiler may keep in vectors.
constexpr int kSums = 8;

template <typename Block>
void product(const void* blocks, const float* x, float* y, int64_t rows, int64_t cols, int64_t x_rows,
             int64_t y_stride) {
  const auto* block = static_cast<const Block*>(blocks);
  const int64_t row_blocks = cols / Block::length;
  for (int64_t r = 0; r < rows; ++r, block += row_blocks) {
    for (int64_t t = 0; t < x_rows; ++t) {
      float sums[kSums] = {};
      for (int64_t i = 0; i < row_blocks; ++i) {
        float values[Block::length];
        plain_dequantize(Block::type)(block + i, values, Block::length);
        const float* in = x + t * cols + i * Block::length;
        for (int64_t j = 0; j < Block::length; j += kSums) {
          for (int64_t s = 0; s < kSums; ++s) sums[s] += values[j + s] * in[j + s];
        }
      }
      y[t * y_stride + r] =
          ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7]));
    }
  }
}

}  // namespace

void add_reference_product(BlockKernels& table) {
  for (int i = 0; i < kBlockTypeCount; ++i) {
    table.product.entries[i] = with_block(static_cast<BlockType>(i), [](auto* block) {
      return &product<std::remove_pointer_t<decltype(block)>>;
    });
  }
}

}  // namespace qkv
