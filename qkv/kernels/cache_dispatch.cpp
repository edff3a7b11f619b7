// The choice of a table of cache kernels. Every set has all of them.
#include "qkv/core/error.h"
#include "qkv/kernels/cache_kernels.h"

namespace qkv {

const CacheKernels& cache_kernels_for(Isa isa) {
  kernels_for(isa);  // Error if the CPU does not have it
  switch (isa) {
#if defined(__x86_64__)
    case Isa::avx2: {
      static const CacheKernels table = kernels_avx2_cache();
      return table;
    }
    case Isa::avx512: {
      static const CacheKernels table = kernels_avx512_cache();
      return table;
    }
#elif defined(__aarch64__)
    case Isa::neon: {
      static const CacheKernels table = kernels_neon_cache();
      return table;
    }
#endif
    default: {
      static const CacheKernels table = kernels_scalar_cache();
      return table;
    }
  }
}

const CacheKernels& cache_kernels() {
  static const CacheKernels& active = cache_kernels_for(active_isa());
  return active;
}

}  // namespace qkv
