// The plain set, and which set is used.
#include "qkv/kernels/codec_kernels.h"

#include <cstring>

#include "qkv/kernels/isa/codec_tables.h"

namespace qkv {
namespace {

#include "qkv/kernels/bodies/codec.inl"

// AVX-512's needs more than the numeric kernels do: permutations and expansions of bytes.
bool has_byte_permutations() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512vbmi") != 0 && __builtin_cpu_supports("avx512vbmi2") != 0;
#else
  return false;
#endif
}

}  // namespace

CodecKernels codec_kernels_for(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::avx512 && has_byte_permutations()) return kernels_avx512_codec();
  if (isa == Isa::avx2 || isa == Isa::avx512) return kernels_avx2_codec();
#endif
  return make_codec_table();
}

const CodecKernels& codec_kernels() {
  static const CodecKernels active = codec_kernels_for(active_isa());
  return active;
}

}  // namespace qkv
