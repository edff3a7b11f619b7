// AVX-512 F/BW/CD/DQ/VL (Skylake-SP and later, Zen 4 and later).
#include "qkv/kernels/isa/tables.h"

// Everything below lives in unnamed namespaces: code compiled for one instruction set must not be shared by the linker
// with another translation unit.
#include "qkv/kernels/bodies/all.inl"

namespace qkv {

const Kernels* kernels_avx512() {
  static const Kernels table = make_table();
  return &table;
}

}  // namespace qkv
