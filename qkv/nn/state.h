// What a sequence remembers between incremental passes. Each mixer defines the memory of its layer; nobody else knows what
// it holds, only how many bytes it is and how to shorten it.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "qkv/tensor/tensor.h"

namespace qkv {

class LayerState {
 public:
  virtual ~LayerState() = default;
  virtual uint64_t bytes() const = 0;
  // Forgets everything after the first `length` tokens. Error if the state cannot (a recurrent one).
  virtual void truncate(int64_t length) = 0;
};

// Keys and values of one attention layer: contiguous, growing by doubling. Bytes: 2 x kv_heads x head_dim x element bytes
// per token of capacity.
class KvState : public LayerState {
 public:
  KvState(int64_t k_width, int64_t v_width) : k_width_(k_width), v_width_(v_width) {}
  // Appends rows k (n, k_width), v (n, v_width).
  void append(const Tensor& k, const Tensor& v);
  int64_t length() const { return length_; }
  Tensor keys() const { return k_.row_view(0, length_); }    // (length, k_width)
  Tensor values() const { return v_.row_view(0, length_); }  // (length, v_width)
  uint64_t bytes() const override;
  void truncate(int64_t length) override;

 private:
  int64_t k_width_, v_width_, length_ = 0;
  Tensor k_, v_;  // (capacity, width)
};

// All layers of one sequence.
struct SequenceState {
  std::vector<std::unique_ptr<LayerState>> layers;
  int64_t length = 0;  // tokens seen
  uint64_t bytes() const;
  void truncate(int64_t new_length);
};

}  // namespace qkv
