// Between element types, block-quantized ones included. Everything goes through float.
#pragma once

#include <cstddef>
#include <cstdint>

#include "qkv/tensor/dtype.h"

namespace qkv {

// Values [first, first + n) of `data` as floats, on the calling thread: exactly, except that f64 and integers
// beyond 2^24 are rounded. A block type's values come in whole blocks: first and n are multiples of its
// length. Error for nf4, whose scales are elsewhere.
void widen(const std::byte* data, DType type, int64_t first, int64_t n, float* out);

// The other way. A block type is rounded to nearest, each block by itself; Error for types whose scales need
// a search.
void narrow(const float* in, DType type, int64_t first, int64_t n, std::byte* data);

// n values, in parallel.
void convert_elements(const std::byte* from, DType from_type, std::byte* to, DType to_type, int64_t n);

}  // namespace qkv
