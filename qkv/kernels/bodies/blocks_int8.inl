// Included after blocks.inl by sets that have integer dot products.
#include <immintrin.h>

namespace qkv {
namespace {

#include "qkv/kernels/bodies/block_int8.inl"
#if defined(__AVX512VNNI__)
#include "qkv/kernels/bodies/block_wide.inl"
//
#include "qkv/kernels/bodies/block_panel.inl"
//
#include "qkv/kernels/bodies/block_activations_wide.inl"
#endif

template <class Block>
void add_int8(BlockKernels& table) {
#if defined(__AVX512VNNI__)
  table.int8_product[Block::type] = int8_panel_product<Block>;
#else
  table.int8_product[Block::type] = int8_product<Block>;
#endif
}

void add_int8_products(BlockKernels& table) {
#if defined(__AVX512VNNI__)
  table.round_activations = round_activations_wide;
#endif
  add_int8<BlockQ4_0>(table);
  add_int8<BlockQ4_1>(table);
  add_int8<BlockQ5_0>(table);
  add_int8<BlockQ5_1>(table);
  add_int8<BlockQ8_0>(table);
  add_int8<BlockQ2K>(table);
  add_int8<BlockQ3K>(table);
  add_int8<BlockQ4K>(table);
  add_int8<BlockQ5K>(table);
  add_int8<BlockQ6K>(table);
  add_int8<BlockIq4Nl>(table);
  add_int8<BlockIq4Xs>(table);
  add_int8<BlockMxfp4>(table);
}

}  // namespace
}  // namespace qkv
