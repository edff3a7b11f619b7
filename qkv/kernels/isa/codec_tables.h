// The tables of codec loops that the instruction-set translation units fill; the plain ones are in
// codec_kernels.cpp.
#pragma once

#include "qkv/kernels/codec_kernels.h"

namespace qkv {

CodecKernels kernels_avx2_codec();
CodecKernels kernels_avx512_codec();

}  // namespace qkv
