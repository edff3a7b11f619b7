// The reference set: one lane at a time, compiled for the baseline CPU.
#define HWY_COMPILE_ONLY_SCALAR
#include "qkv/kernels/isa/tables.h"

// Everything below lives in unnamed namespaces: code compiled for one instruction set must not be shared by the linker
// with another translation unit.
#include "qkv/kernels/bodies/all.inl"

namespace qkv {

const Kernels* kernels_scalar() {
  static const Kernels table = make_table();
  return &table;
}

}  // namespace qkv
