// Keys and values of earlier tokens in pages, and attention over them: how a page is laid out, how rows get
// into it and out again, and the op that reads it where it lies. Off the tape. The pages' owner is above
// (nn/kv_state.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "qkv/kernels/kernels.h"
#include "qkv/tensor/tensor.h"

namespace qkv {

// f32, f16, bf16, q8_0, q5_1 or q4_0.
bool is_cache_type(DType type);

// A page of one layer (kernels/cache_kernels.h). Without values of their own (v_dim 0) the keys are the
// values, too, as in latent attention.
struct CacheLayout {
  int64_t heads = 0, k_dim = 0, v_dim = 0;
  DType k_type = DType::f32, v_type = DType::f32;
  int64_t page_tokens = 0;  // a multiple of 16

  int64_t k_row_bytes() const;  // of one head; block types are padded to whole blocks
  int64_t v_row_bytes() const;
  int64_t bytes_per_token() const { return heads * (k_row_bytes() + v_row_bytes()); }
  int64_t page_bytes() const { return v_base() + heads * page_tokens * v_row_bytes(); }
  int64_t k_offset(int64_t head, int64_t slot) const { return (head * page_tokens + slot) * k_row_bytes(); }
  int64_t v_offset(int64_t head, int64_t slot) const {
    return v_base() + (head * page_tokens + slot) * v_row_bytes();
  }

 private:
  int64_t v_base() const;
};
// Error unless heads, dimensions, types and tokens per page make sense.
void check(const CacheLayout& layout);

// Rounds x (n) into a row of n values of `type`, and back. A value that is not finite makes its block NaN.
void store_cache_row(const float* x, int64_t n, DType type, std::byte* row);
void load_cache_row(const std::byte* row, int64_t n, DType type, float* x);

namespace ops {

// One sequence of a pass. Its tokens stand in slots, slot s in row s % page_tokens of page s / page_tokens.
struct CachedSequence {
  const std::byte* const* pages = nullptr;
  int64_t begin = 0, end = 0;  // its rows of q
  int64_t slot = 0;            // of its first query; the slots up to a query's own are seen
  int64_t first_slot = 0;      // and none before this one, but for
  int64_t sinks = 0;  // the first ones, up to first_slot at most: seen by the rows of q_sinks instead
};
// q (T, n_heads * qk_dim): every sequence's new queries against its pages, its own tokens included. q_sinks:
// as q, or undefined where no sequence has sinks. Writes out (T, n_heads * v_dim), like q f32 or bf16.
// A query's result depends on its own sequence alone, and not on how many queries come with it as long as
// they are few.
void attend_cached(const Tensor& q, const Tensor& q_sinks, const CacheLayout& layout,
                   std::span<const CachedSequence> sequences, Tensor& out, const AttentionSpec& spec);

// x (T, heads * dim), dim a power of two: every head times the Hadamard matrix of its size over sqrt(dim),
// which is orthogonal and its own inverse (Sylvester's, by the fast Walsh-Hadamard transform). Off the tape.
Tensor hadamard_heads(const Tensor& x, int64_t dim);

}  // namespace ops
}  // namespace qkv
