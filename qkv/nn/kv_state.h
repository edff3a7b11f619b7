// Keys and values of one attention layer in pages.
#pragma once

#include <memory>
#include <vector>

#include "qkv/nn/state.h"
#include "qkv/tensor/cached_attention.h"

namespace qkv {

// With a window only the pages are kept that later tokens can still see (and those of sinks). Pages are
// shared between forks; one that is not full is copied before it is written (copy on write).
class KvState : public LayerState {
 public:
  // Heads and dimensions are the layout's; types and page size the options'. `window`: of the layer itself,
  // 0: none. Error for options that do not make sense.
  KvState(CacheLayout layout, const CacheOptions& options, int64_t window = 0);

  // Appends rows k (n, heads * k_dim) and v (n, heads * v_dim), f32 or bf16; v undefined if v_dim is 0.
  void append(const Tensor& k, const Tensor& v = {});
  // Gives back what a long append took beyond the window. Call after attending.
  void trim();

  int64_t length() const { return length_; }  // tokens seen
  const CacheLayout& layout() const { return layout_; }
  const CacheOptions& options() const { return options_; }
  // What the tokens see: 0: everything before them.
  int64_t window() const { return window_; }
  // For ops::attend_cached, of the latest `n` tokens as rows [begin, begin + n) of the queries. Valid until
  // the state changes.
  ops::CachedSequence view(int64_t begin, int64_t n) const;
  // Tokens [begin, length()) as a tensor (tokens, heads * dim). Error where they are not held any more.
  Tensor keys(int64_t begin = 0, DType type = DType::f32) const { return rows(begin, type, false); }
  Tensor values(int64_t begin = 0, DType type = DType::f32) const { return rows(begin, type, true); }
  int64_t first_held() const { return first_; }  // the oldest token behind the sinks

  uint64_t bytes() const override;
  void reserve(int64_t tokens) override;
  void truncate(int64_t length) override;
  std::unique_ptr<LayerState> fork(int64_t length) const override;
  void write(ByteSink sink) const override;
  void read(ByteSource source, int64_t most_tokens) override;

  // bytes() of `tokens` tokens that came in passes of at most `pass_tokens`; with a window the most on the
  // way there.
  static uint64_t bytes_of(CacheLayout layout, const CacheOptions& options, int64_t window, int64_t tokens,
                           int64_t pass_tokens = 1);

 private:
  int64_t needed(int64_t length) const;  // the first token that the next one sees
  void release_before(int64_t token);
  Tensor rows(int64_t begin, DType type, bool values) const;

  CacheLayout layout_;
  CacheOptions options_;
  int64_t window_;
  int64_t length_ = 0;
  int64_t first_ = 0;                              // pages before it are released, but for the sinks'
  std::vector<std::shared_ptr<CachePage>> pages_;  // null: released
  std::vector<const std::byte*> addresses_;        // of their data
};

}  // namespace qkv
