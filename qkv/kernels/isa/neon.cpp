// NEON with fused multiply-add (every ARMv8-A CPU).
#include "qkv/kernels/isa/tables.h"

// Everything below lives in unnamed namespaces: code compiled for one instruction set must not be shared by the linker
// with another translation unit.
#include "qkv/kernels/bodies/all.inl"

namespace qkv {

const Kernels* kernels_neon() {
  static const Kernels table = make_table();
  return &table;
}

}  // namespace qkv
