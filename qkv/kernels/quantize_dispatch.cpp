// The choice of a table of quantization kernels. Every set has all of them.
#include "qkv/core/error.h"
#include "qkv/kernels/quantize_kernels.h"

namespace qkv {

const QuantizeKernels& quantize_kernels_for(Isa isa) {
  kernels_for(isa);  // Error if the CPU does not have it
  switch (isa) {
#if defined(__x86_64__)
    case Isa::avx2: {
      static const QuantizeKernels table = kernels_avx2_quantize();
      return table;
    }
    case Isa::avx512: {
      static const QuantizeKernels table = kernels_avx512_quantize();
      return table;
    }
#elif defined(__aarch64__)
    case Isa::neon: {
      static const QuantizeKernels table = kernels_neon_quantize();
      return table;
    }
#endif
    default: {
      static const QuantizeKernels table = kernels_scalar_quantize();
      return table;
    }
  }
}

const QuantizeKernels& quantize_kernels() {
  static const QuantizeKernels& active = quantize_kernels_for(active_isa());
  return active;
}

}  // namespace qkv
