// What an instruction-set translation unit of cache kernels compiles: as all.inl, for attention over pages.
#include <hwy/highway.h>
#include <hwy/contrib/math/math-inl.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "qkv/kernels/cache_kernels.h"

namespace qkv {
namespace {

#include "qkv/kernels/bodies/vector.inl"
//
#include "qkv/kernels/bodies/attention_tiles.inl"
#include "qkv/kernels/bodies/attention_scores.inl"
//
#include "qkv/kernels/bodies/attention_few.inl"
#include "qkv/kernels/bodies/attention_forward.inl"
#include "qkv/kernels/bodies/cache_blocks.inl"
//
#include "qkv/kernels/bodies/cache_attention.inl"

CacheKernels make_cache_table() {
  return {attend_few, attend_many, cache_scratch_bytes};
}

}  // namespace
}  // namespace qkv
