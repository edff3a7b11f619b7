// What a sequence remembers between incremental passes. Each mixer defines the memory of its layer; nobody
// else knows what it holds, only how many bytes it is, how to shorten it and how to go on from it twice.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "qkv/core/parallel.h"
#include "qkv/nn/page_pool.h"
#include "qkv/tensor/dtype.h"

namespace qkv {

// How the caches of a sequence's attention layers are kept.
struct CacheOptions {
  DType k_type = DType::f32, v_type = DType::f32;  // f32, f16, bf16, q8_0, q5_1 or q4_0
  // Keys and queries of every head are rotated by a Hadamard matrix, which spreads outliers over all
  // dimensions before rounding and leaves their products what they are (QuaRot: Ashkboos et al., arXiv
  // 2404.00456). Heads must be powers of two.
  bool rotate_k = false;
  int64_t page_tokens = 32;        // a multiple of 16
  std::shared_ptr<PagePool> pool = nullptr;  // null: a pool of its own, without limit
  // > 0: attention sinks (StreamingLLM: Xiao et al., arXiv 2309.17453): besides the latest `window` tokens
  // only the first `sinks` are kept, and positions are those within the cache.
  int64_t window = 0, sinks = 0;

  // Whether states of either can be in one pass.
  bool is_like(const CacheOptions& other) const {
    return k_type == other.k_type && v_type == other.v_type && rotate_k == other.rotate_k &&
           page_tokens == other.page_tokens && window == other.window && sinks == other.sinks;
  }
};
// Error for what no model could do.
void check(const CacheOptions& options);

using ByteSink = FunctionRef<void(std::span<const std::byte>)>;
using ByteSource = FunctionRef<void(std::span<std::byte>)>;  // fills it, or throws

class LayerState {
 public:
  virtual ~LayerState() = default;
  // What this state refers to; pages that it shares with others included.
  virtual uint64_t bytes() const = 0;
  // Makes room for the next tokens, so that taking them cannot fail. CacheFull if there is none; the state
  // stays what it was.
  virtual void reserve(int64_t /*tokens*/) {}
  // Forgets everything after the first `length` tokens. Error if the state cannot (a recurrent one).
  virtual void truncate(int64_t length) = 0;
  // Whether it can at all: the tokens of one pass can be taken back. A recurrent state has no way back.
  virtual bool can_truncate() const { return true; }
  // Another state of the first `length` tokens. It shares memory that neither writes. Error where truncate()
  // would give one.
  virtual std::unique_ptr<LayerState> fork(int64_t length) const = 0;
  // What read() of an empty state made alike turns back into this one, bit for bit. Error if the source is no
  // such thing; whatever it says, read() asks for no more memory than `most_tokens` tokens take.
  virtual void write(ByteSink sink) const = 0;
  virtual void read(ByteSource source, int64_t most_tokens) = 0;
};

// All layers of one sequence.
struct SequenceState {
  std::vector<std::unique_ptr<LayerState>> layers;
  int64_t length = 0;  // tokens seen
  uint64_t bytes() const;
  // Room for the next tokens in every layer. CacheFull if there is none; the state is then what it was, but
  // for pages that it no longer shares. A model's forward calls it for all its sequences before it computes
  // anything.
  void reserve(int64_t tokens);
  void truncate(int64_t new_length);
  bool can_truncate() const;
  SequenceState fork(int64_t new_length) const;
  void write(ByteSink sink) const;
  // Into a state without tokens.
  void read(ByteSource source, int64_t most_tokens);
};

}  // namespace qkv
