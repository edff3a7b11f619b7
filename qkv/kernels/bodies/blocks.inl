// What an instruction-set translation unit of block kernels compiles: as all.inl, for blocks alone, because nothing here may
// be contracted to fused operations (-ffp-contract=off).
#include <hwy/highway.h>
#include <hwy/contrib/math/math-inl.h>

#include <array>
#include <cstdint>
#include <cstring>

#include "qkv/kernels/block_codebooks.h"
#include "qkv/kernels/block_reference.h"
#include "qkv/kernels/blocks.h"

namespace qkv {
namespace {

#include "qkv/kernels/bodies/vector.inl"
//
#include "qkv/kernels/bodies/block_codes.inl"
//
#include "qkv/kernels/bodies/block_rows.inl"

}  // namespace
}  // namespace qkv
