// What an instruction-set translation unit of quantization kernels compiles. Nothing may be contracted to fused operations
// (-ffp-contract=off).
#include <hwy/highway.h>
#include <hwy/contrib/math/math-inl.h>

#include <array>
#include <cstdint>
#include <cstring>

#include "qkv/kernels/block_codebooks.h"
#include "qkv/kernels/quantize_kernels.h"

namespace qkv {
namespace {

#include "qkv/kernels/bodies/vector.inl"
//
#include "qkv/kernels/bodies/quantize_groups.inl"

}  // namespace
}  // namespace qkv
