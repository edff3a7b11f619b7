// Quantization kernels: AVX-512 F/BW/CD/DQ/VL.
#include "qkv/kernels/quantize_kernels.h"

// Everything below lives in unnamed namespaces: code compiled for one instruction set must not be shared by
// the linker with another translation unit.
#include "qkv/kernels/bodies/quantize.inl"

namespace qkv {

QuantizeKernels kernels_avx512_quantize() {
  return make_quantize_table();
}

}  // namespace qkv
