// Cache kernels: one lane at a time.
#define HWY_COMPILE_ONLY_SCALAR
#include "qkv/kernels/cache_kernels.h"

// Everything below lives in unnamed namespaces: code compiled for one instruction set must not be shared by
// the linker with another translation unit.
#include "qkv/kernels/bodies/cache.inl"

namespace qkv {

CacheKernels kernels_scalar_cache() {
  return make_cache_table();
}

}  // namespace qkv
