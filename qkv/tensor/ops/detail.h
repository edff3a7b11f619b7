// Shared by the ops: parallel loops over rows and elements, and checks.
#pragma once

#include <algorithm>

#include "qkv/core/error.h"
#include "qkv/core/parallel.h"
#include "qkv/tensor/ops.h"


namespace qkv::ops::detail {

// Elements per thread below which splitting costs more than it gains.
constexpr int64_t kElementGrain = 1 << 14;

// Rows per part so that a part has about kElementGrain elements.
inline int64_t row_grain(int64_t cols) { return std::max<int64_t>(1, kElementGrain / std::max<int64_t>(1, cols)); }

// Sentences are made only where they are needed: describe() costs more than a small op.
inline void require_same(const Tensor& a, const Tensor& b, const char* op) {
  if (a.shape() != b.shape() || a.dtype() != b.dtype()) {
    fail("{}: expected two tensors alike, found {} and {}", op, describe(a), describe(b));
  }
}

inline void require_vector(const Tensor& w, int64_t length, const char* what) {
  if (w.defined() && (w.shape() != Shape{length} || w.dtype() != DType::f32)) {
    fail("{}: expected f32 ({}), found {}", what, length, describe(w));
  }
}

inline const float* data_or_null(const Tensor& w) { return w.defined() ? w.data<float>() : nullptr; }

// Scratch for every thread, one block each.
class Scratch {
 public:
  explicit Scratch(size_t bytes_per_thread)
      : stride_((bytes_per_thread + 63) / 64 * 64), memory_(allocate(stride_ * static_cast<size_t>(num_threads()))) {}
  void* of(int thread) const { return memory_.get() + stride_ * static_cast<size_t>(thread); }

 private:
  size_t stride_;
  std::shared_ptr<std::byte> memory_;
};

// Rows are split into a fixed number of blocks, whatever the thread count, and each block's partial sum is added in
// order: sums over rows (bias and norm gradients) are the same bits for any number of threads.
class RowReduction {
 public:
  RowReduction(int64_t rows, int64_t width) : rows_(rows), width_(width), blocks_(std::min<int64_t>(rows, 16)) {
    if (blocks_ > 0) partial_ = Tensor::zeros({blocks_, std::max<int64_t>(1, width)});
  }
  // body(begin, end, partial): `partial` (width) floats, to accumulate into.
  template <typename Body>
  void run(Body&& body) {
    float* partial = blocks_ > 0 ? partial_.data<float>() : nullptr;
    parallel_for(blocks_, 1, [&](int64_t first, int64_t last) {
      for (int64_t b = first; b < last; ++b) {
        body(rows_ * b / blocks_, rows_ * (b + 1) / blocks_, partial + b * width_);
      }
    });
  }
  // out[i] += the sum of partial[offset + i] over blocks.
  void add_to(float* out, int64_t offset, int64_t n) const {
    for (int64_t b = 0; b < blocks_; ++b) kernels().axpy(1.0f, partial_.data<float>() + b * width_ + offset, out, n);
  }

 private:
  int64_t rows_, width_, blocks_;
  Tensor partial_;
};

}  // namespace qkv::ops::detail
