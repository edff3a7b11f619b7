// The tables that the instruction-set translation units fill. A null entry falls through to the next lower set.
#pragma once

#include "qkv/kernels/kernels.h"

namespace qkv {

const Kernels* kernels_scalar();
const Kernels* kernels_avx2();
const Kernels* kernels_avx512();
const Kernels* kernels_neon();

// Block kernels, in translation units of their own; scalar's are block_kernels_reference().
BlockKernels kernels_avx2_blocks();
BlockKernels kernels_avx512_blocks();
BlockKernels kernels_avx512vnni_blocks();
BlockKernels kernels_neon_blocks();

}  // namespace qkv
