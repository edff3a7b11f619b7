#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "qkv/core/error.h"
#include "qkv/kernels/cache_kernels.h"
#include "qkv/tensor/cached_attention.h"
#include "qkv/tensor/convert.h"

namespace qkv {
namespace {

constexpr int64_t kLine = 64;

int64_t round_up(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

int64_t row_bytes(DType type, int64_t dim) {
  return static_cast<int64_t>(
      dtype_bytes(type, static_cast<uint64_t>(round_up(dim, traits(type).block_length))));
}

// Values that no block scale can stand for.
bool all_finite(const float* x, int64_t n) {
  float sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += x[i] * 0.0f;
  return sum == 0.0f;
}

}  // namespace

bool is_cache_type(DType type) {
  return type == DType::f32 || type == DType::f16 || type == DType::bf16 || type == DType::q8_0 ||
         type == DType::q5_1 || type == DType::q4_0;
}

int64_t CacheLayout::k_row_bytes() const {
  return row_bytes(k_type, k_dim);
}
int64_t CacheLayout::v_row_bytes() const {
  return row_bytes(v_type, v_dim);
}
int64_t CacheLayout::v_base() const {
  return round_up(heads * page_tokens * k_row_bytes(), kLine);
}

void check(const CacheLayout& layout) {
  for (const DType type : {layout.k_type, layout.v_type}) {
    require(is_cache_type(type), "cache type: expected f32, f16, bf16, q8_0, q5_1 or q4_0, found {}",
            name(type));
  }
  require(layout.heads > 0 && layout.k_dim > 0 && layout.v_dim >= 0,
          "cache: expected heads with keys, found {} of {} and {}", layout.heads, layout.k_dim, layout.v_dim);
  require(layout.page_tokens > 0 && layout.page_tokens % kCacheAlignment == 0,
          "cache: expected pages of a multiple of {} tokens, found {}", kCacheAlignment, layout.page_tokens);
}

// Whole blocks where they lie; the last one through a copy with zeros behind.
void store_cache_row(const float* x, int64_t n, DType type, std::byte* row) {
  const int64_t length = traits(type).block_length, bytes = traits(type).block_bytes;
  if (length == 1) return narrow(x, type, 0, n, row);
  std::array<float, 32> block;
  for (int64_t i = 0; i < n; i += length, row += bytes) {
    const int64_t count = std::min(length, n - i);
    block.fill(0);
    if (all_finite(x + i, count)) std::copy_n(x + i, count, block.begin());
    narrow(block.data(), type, 0, length, row);
    if (all_finite(x + i, count)) continue;
    const f16 nan = to_f16(std::numeric_limits<float>::quiet_NaN());
    std::memcpy(row, &nan, sizeof nan);  // the scale comes first in all of them
  }
}

void load_cache_row(const std::byte* row, int64_t n, DType type, float* x) {
  const int64_t length = traits(type).block_length, whole = n / length * length;
  if (whole > 0) widen(row, type, 0, whole, x);
  if (whole == n) return;
  std::array<float, 32> block;
  widen(row, type, whole, length, block.data());
  std::copy_n(block.begin(), n - whole, x + whole);
}

}  // namespace qkv
