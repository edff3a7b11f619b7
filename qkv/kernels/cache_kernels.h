// Attention over a cache in pages: keys and values are read where they lie, in the type they are stored in.
//
// A page holds page_tokens tokens of one layer: first the keys, head after head and token after token within
// a head, then the values likewise. A row (one token's key or value of one head) of a block type is padded
// with zeros to whole blocks.
#pragma once

#include <cstddef>
#include <cstdint>

#include "qkv/kernels/kernels.h"

namespace qkv {

enum class CacheType : uint8_t { f32, f16, bf16, q8_0, q5_1, q4_0 };

// What tokens per page must be a multiple of: tiles of keys begin there, and vectors of scores.
constexpr int64_t kCacheAlignment = 16;

// One key/value head of one sequence. Token t is row t % page_tokens of page t / page_tokens; pages that
// nothing reads may be null.
struct CachedHead {
  const std::byte* const* pages = nullptr;
  int64_t page_tokens = 0;
  int64_t k_offset = 0, v_offset = 0;  // bytes from the beginning of a page to the head's first row
  int64_t k_row = 0, v_row = 0;        // bytes from a row to the next
  CacheType k_type = CacheType::f32, v_type = CacheType::f32;
};

// New tokens of the sequence: query i of head h at q + i * q_stride + h * qk_dim. It sits at key position
// `position` + i and sees of the keys [key_begin, key_end) what the spec's causality and window leave.
struct CacheQueries {
  const float* q = nullptr;
  int64_t q_stride = 0;
  int64_t count = 0;
  int64_t position = 0;
  int64_t key_begin = 0, key_end = 0;
  int64_t ahead_end = 0;  // the caller goes on with the keys from key_end up to here: fetched meanwhile
};

// Up to so many (query, head) pairs are taken as few: keys and values are read once for all of them and
// nothing is packed.
constexpr int64_t kCacheFewRows = 16;
// Keys of one call for few rows at most. A longer past is split, which is also what threads share
// (Flash-Decoding: Dao et al., 2023).
constexpr int64_t kCacheChunk = 256;

// What few rows make of some of the keys, to be merged: values weighted by 2^(score - maximum), scores in
// base 2, and the sum of those weights. Rows are (query, head) pairs, the heads of a query side by side.
// A row that saw no key has maximum -infinity, sum 0 and weighted 0.
struct CachePart {
  float* weighted = nullptr;  // (rows, v_dim)
  float* maximum = nullptr;   // (rows)
  float* sum = nullptr;       // (rows)
};

struct CacheKernels {
  // Query heads [head_begin, head_end), which share the cached head; keys [key_begin, key_end) of the queries
  // are at most kCacheChunk and begin at a multiple of kCacheAlignment. A row's result does not depend on
  // the others.
  void (*attend_few)(const AttentionSpec& spec, const CachedHead& cache, const CacheQueries& queries,
                     int head_begin, int head_end, const CachePart& part, void* scratch);
  // Any number of rows: queries [q_begin, q_end). Writes their outputs, head h of query i at
  // out + i * out_stride + h * v_dim, and lse (n_heads, count): log-sum-exp of each row's scores.
  void (*attend_many)(const AttentionSpec& spec, const CachedHead& cache, const CacheQueries& queries,
                      int head_begin, int head_end, int64_t q_begin, int64_t q_end, float* out,
                      int64_t out_stride, float* lse, void* scratch);
  // Bytes of scratch, 64-byte aligned and one per thread, for either.
  size_t (*scratch_bytes)(const AttentionSpec& spec);
};

// The active table, and the one of an available set.
const CacheKernels& cache_kernels();
const CacheKernels& cache_kernels_for(Isa isa);

// One translation unit each.
CacheKernels kernels_scalar_cache();
CacheKernels kernels_avx2_cache();
CacheKernels kernels_avx512_cache();
CacheKernels kernels_neon_cache();

}  // namespace qkv
