// Quantization kernels: one lane at a time.
#define HWY_COMPILE_ONLY_SCALAR
#include "qkv/kernels/quantize_kernels.h"

// Everything below lives in unnamed namespaces: code compiled for one instruction set must not be shared by
// the linker with another translation unit.
#include "qkv/kernels/bodies/quantize.inl"

namespace qkv {

QuantizeKernels kernels_scalar_quantize() {
  return make_quantize_table();
}

}  // namespace qkv
