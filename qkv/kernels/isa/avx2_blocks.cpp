// Block kernels for AVX2 + FMA + F16C.
#include "qkv/kernels/isa/tables.h"

// Everything below lives in unnamed namespaces: code compiled for one instruction set must not be shared by the linker
// with another translation unit.
#include "qkv/kernels/bodies/blocks.inl"
//
#include "qkv/kernels/bodies/blocks_int8.inl"

namespace qkv {

BlockKernels kernels_avx2_blocks() {
  BlockKernels table = make_block_table();
  add_int8_products(table);
  return table;
}

}  // namespace qkv
