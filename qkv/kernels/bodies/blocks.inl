// What an instruction-set translation unit of block kernels compiles: as all.inl, for blocks alone, because nothing here may
// be contracted to fused operations (-ffp-contract=off).
#include <hwy/highway.h>
#include <hwy/contrib/math/math-inl.h>

#include <array>
#include <cstdint>
#include <cstring>

#include "qkv/kernels/block_codebooks.h"
#include "qkv/kernels/block_reference.h"
#include "qkv/kernels/blocks.h"

namespace qkv {
namespace {

#include "qkv/kernels/bodies/vector.inl"
//
#include "qkv/kernels/bodies/block_codes.inl"
//
#include "qkv/kernels/bodies/block_rows.inl"
//
#include "qkv/kernels/bodies/block_activations.inl"

template <class Block>
void add_plain(BlockKernels& table) {
  table.product[Block::type] = plain_product<Block>;
}
template <class Block>
void add_vectorized(BlockKernels& table) {
  table.dequantize[Block::type] = dequantize_row<Block>;
  table.product[Block::type] = block_product<Block>;
}

[[maybe_unused]] BlockKernels make_block_table() {
  BlockKernels table{};
  table.round_activations = round_activations;
  add_vectorized<BlockQ4_0>(table);
  add_vectorized<BlockQ4_1>(table);
  add_vectorized<BlockQ5_0>(table);
  add_vectorized<BlockQ5_1>(table);
  add_vectorized<BlockQ8_0>(table);
  add_vectorized<BlockQ2K>(table);
  add_vectorized<BlockQ3K>(table);
  add_vectorized<BlockQ4K>(table);
  add_vectorized<BlockQ5K>(table);
  add_vectorized<BlockQ6K>(table);
  add_vectorized<BlockIq4Nl>(table);
  add_vectorized<BlockIq4Xs>(table);
  add_vectorized<BlockMxfp4>(table);
  add_plain<BlockQ8_1>(table);
  add_plain<BlockQ8K>(table);
  add_plain<BlockIq1S>(table);
  add_plain<BlockIq1M>(table);
  add_plain<BlockIq2Xxs>(table);
  add_plain<BlockIq2Xs>(table);
  add_plain<BlockIq2S>(table);
  add_plain<BlockIq3Xxs>(table);
  add_plain<BlockIq3S>(table);
  add_plain<BlockTq1_0>(table);
  add_plain<BlockTq2_0>(table);
  return table;
}

}  // namespace
}  // namespace qkv
