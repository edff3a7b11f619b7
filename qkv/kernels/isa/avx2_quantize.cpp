// Quantization kernels: AVX2 + FMA + F16C.
#include "qkv/kernels/quantize_kernels.h"

// Everything below lives in unnamed namespaces: code compiled for one instruction set must not be shared by
// the linker with another translation unit.
#include "qkv/kernels/bodies/quantize.inl"

namespace qkv {

QuantizeKernels kernels_avx2_quantize() {
  return make_quantize_table();
}

}  // namespace qkv
