// Block kernels for AVX-512 with VNNI (Ice Lake and later, Zen 4 and later): laid over the AVX-512 table where the CPU has it.
#include "qkv/kernels/isa/tables.h"

// Everything below lives in unnamed namespaces: code compiled for one instruction set must not be shared by the linker
// with another translation unit.
#include "qkv/kernels/bodies/blocks.inl"
//
#include "qkv/kernels/bodies/blocks_int8.inl"

namespace qkv {

BlockKernels kernels_avx512vnni_blocks() {
  BlockKernels table{};
  add_int8_products(table);
  return table;
}

}  // namespace qkv
