// AVX2 + FMA + F16C (Haswell and later, all Zen).
#include "qkv/kernels/isa/tables.h"

// Everything below lives in unnamed namespaces: code compiled for one instruction set must not be shared by the linker
// with another translation unit.
#include "qkv/kernels/bodies/all.inl"

namespace qkv {

const Kernels* kernels_avx2() {
  static const Kernels table = make_table();
  return &table;
}

}  // namespace qkv
