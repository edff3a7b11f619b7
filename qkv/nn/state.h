// What a sequence remembers between incremental passes. Each mixer defines the memory of its layer; nobody
// else knows what it holds, only how many bytes it is and how to shorten it.
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
  // Whether it can at all: the tokens of one pass can be taken back. A recurrent state has no way back.
  virtual bool can_truncate() const { return true; }
};

// Keys and values of one attention layer, contiguous. With a window only what later tokens can still see is
// kept: the buffer holds up to two windows, so that the older one is dropped by one move per window of
// tokens. Without, it grows by doubling. Bytes: (k_width + v_width) x element bytes per token of capacity.
class KvState : public LayerState {
 public:
  KvState(int64_t k_width, int64_t v_width, int64_t window = 0)
      : k_width_(k_width), v_width_(v_width), window_(window) {}
  // Appends rows k (n, k_width), v (n, v_width); v undefined if its width is 0.
  void append(const Tensor& k, const Tensor& v = {});
  int64_t length() const { return length_; }  // tokens seen
  Tensor keys() const {
    return k_.row_view(begin_, begin_ + held());
  }  // of the newest tokens, (held, k_width)
  Tensor values() const { return v_.row_view(begin_, begin_ + held()); }  // (held, v_width)
  // Gives back what a long append took beyond the window. Call after attending.
  void trim();
  uint64_t bytes() const override;
  void truncate(int64_t length) override;

 private:
  int64_t held() const { return length_ - first_; }
  void reallocate(int64_t capacity, DType type);
  int64_t k_width_, v_width_, window_;
  int64_t length_ = 0;  // tokens seen
  int64_t first_ = 0;   // the oldest token held
  int64_t begin_ = 0;   // its row
  Tensor k_, v_;        // (capacity, width)
};

// All layers of one sequence.
struct SequenceState {
  std::vector<std::unique_ptr<LayerState>> layers;
  int64_t length = 0;  // tokens seen
  uint64_t bytes() const;
  void truncate(int64_t new_length);
  bool can_truncate() const;
};

}  // namespace qkv
