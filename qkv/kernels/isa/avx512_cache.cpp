// Cache kernels: AVX-512 F/BW/CD/DQ/VL.
#include "qkv/kernels/cache_kernels.h"

// Everything below lives in unnamed namespaces: code compiled for one instruction set must not be shared by
// the linker with another translation unit.
#include "qkv/kernels/bodies/cache.inl"

namespace qkv {

CacheKernels kernels_avx512_cache() {
  return make_cache_table();
}

}  // namespace qkv
