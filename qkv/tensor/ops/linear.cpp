// Matrix products: a layer's x w^T + b, and the plain product.
#include <cstring>

#include "qkv/tensor/batch_invariance.h"
#include "qkv/tensor/gemm.h"
#include "qkv/tensor/ops/detail.h"
#include "qkv/tensor/ops/weight_product.h"

namespace qkv::ops {
namespace {

using detail::RowReduction;

MatrixOperand operand(const Tensor& t, bool transposed) { return {t.raw(), t.dtype(), t.cols(), transposed}; }

void product(int64_t m, int64_t n, int64_t k, const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b, Tensor& c,
             bool accumulate) {
  gemm(m, n, k, operand(a, transpose_a), operand(b, transpose_b), c.raw(), c.dtype(), c.cols(), accumulate);
}

// A trainable master keeps its copy in the activations' type until the optimizer writes it; other weights stay as stored.
Tensor compute_copy(const Tensor& w, DType type) { return w.tracks_gradient() ? w.compute_copy(type) : w.detach(); }

void add_bias(Tensor& y, const Tensor& bias) {
  with_float_type(y.dtype(), "linear", [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const int64_t cols = y.cols();
    T* data = y.data<T>();
    parallel_for(y.rows(), detail::row_grain(cols), [&](int64_t begin, int64_t end) {
      kernels().typed<T>().add_bias(data + begin * cols, bias.data<float>(), data + begin * cols, end - begin, cols);
    });
  });
}

void bias_gradient(const Tensor& dy, float* out) {
  with_float_type(dy.dtype(), "linear", [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const int64_t cols = dy.cols();
    const T* data = dy.data<T>();
    RowReduction sums(dy.rows(), cols);
    sums.run([&](int64_t begin, int64_t end, float* partial) {
      kernels().typed<T>().sum_rows(data + begin * cols, partial, end - begin, cols);
    });
    sums.add_to(out, 0, cols);
  });
}

}  // namespace

Tensor linear(const Tensor& x, const Tensor& w, const Tensor& bias) {
  if (w.shape().rank() != 2 || x.shape().rank() != 2 || x.cols() != w.cols()) {
    fail("linear: expected x (T, {}) for a weight {}, found {}", w.shape().rank() == 2 ? w.cols() : 0, describe(w), describe(x));
  }
  detail::require_vector(bias, w.dim(0), "linear: bias");
  if (w.is_placeholder()) fail("linear: the weight {} has not been loaded", describe(w));
  require(!w.tracks_gradient() || is_floating(w.dtype()), "linear: a weight of type {} cannot be trained", name(w.dtype()));
  const int64_t rows = x.rows(), k = x.cols(), n = w.dim(0);
  // The same products on the tape and off it, so that what activation checkpointing runs twice is the same bits twice.
  const Tensor stored = compute_copy(w, x.dtype());
  Tensor y;
  if (batch_invariant() || detail::are_few_rows(rows, stored.dtype())) {
    y = detail::few_rows_product(x, stored);
  } else {
    y = Tensor::empty({rows, n}, x.dtype());
    detail::weight_product(x, stored, y);
  }
  if (bias.defined()) add_bias(y, bias);
  record("linear", {x, w, bias}, {&y}, [&] {
    const bool x_wanted = x.tracks_gradient(), w_wanted = w.tracks_gradient();
    const Saved saved_x = w_wanted ? Saved(x) : Saved();
    const Tensor weight = x_wanted ? w : Tensor();  // the parameter itself: its compute copy is shared, not saved again
    return [=, type = x.dtype()](const std::vector<Tensor>& grads, GradientSink& sink) {
      const Tensor& dy = grads[0];  // (T, N)
      if (x_wanted) {
        const auto dx = sink.buffer(0);
        Tensor target = dx.tensor;
        // x's gradient is f32 when x is a leaf, whatever its type.
        const Tensor upstream = target.dtype() == type ? dy : dy.to(DType::f32);
        detail::weight_product_backward(upstream, compute_copy(weight, target.dtype()), target, dx.accumulate);
      }
      if (w_wanted) {
        const auto dw = sink.buffer(1);
        Tensor target = dw.tensor;
        product(n, k, rows, dy, true, saved_x.take(), false, target, dw.accumulate);
      }
      if (sink.needs(2)) bias_gradient(dy, sink.zeroed(2).data<float>());
    };
  });
  return y;
}

Tensor linear_backward_input(const Tensor& dy, const Tensor& w) {
  require(w.shape().rank() == 2 && dy.shape().rank() == 2 && dy.cols() == w.dim(0), "linear: expected dy (T, {}) for a weight {}, found {}",
          w.shape().rank() == 2 ? w.dim(0) : 0, describe(w), describe(dy));
  Tensor dx = Tensor::empty({dy.rows(), w.cols()}, dy.dtype());
  detail::weight_product_backward(dy.detach(), w.detach(), dx, false);
  return dx;
}

Tensor matmul(const Tensor& a, const Tensor& b, bool transpose_a, bool transpose_b) {
  require(a.shape().rank() == 2 && b.shape().rank() == 2 && a.dtype() == b.dtype(), "matmul: expected two matrices of one type, found {} and {}",
          describe(a), describe(b));
  const int64_t m = a.dim(transpose_a ? 1 : 0), k = a.dim(transpose_a ? 0 : 1);
  const int64_t n = b.dim(transpose_b ? 0 : 1), k_b = b.dim(transpose_b ? 1 : 0);
  require(k == k_b, "matmul: inner dimensions differ: {} and {}", describe(a), describe(b));
  Tensor y = Tensor::empty({m, n}, a.dtype());
  product(m, n, k, a, transpose_a, b, transpose_b, y, false);
  record("matmul", {a, b}, {&y}, [&] {
    const Saved saved_a(a), saved_b(b);
    return [=](const std::vector<Tensor>& grads, GradientSink& sink) {
      const Tensor& dy = grads[0];  // (M, N)
      const Tensor a_data = saved_a.take(), b_data = saved_b.take();
      if (sink.needs(0)) {  // da = dy b^T, or its transpose b dy^T
        Tensor da = Tensor::empty(a_data.shape(), dy.dtype());
        if (transpose_a) {
          product(k, m, n, b_data, transpose_b, dy, true, da, false);
        } else {
          product(m, k, n, dy, false, b_data, !transpose_b, da, false);
        }
        sink.add(0, da);
      }
      if (sink.needs(1)) {  // db = a^T dy, or its transpose dy^T a
        Tensor db = Tensor::empty(b_data.shape(), dy.dtype());
        if (transpose_b) {
          product(n, k, m, dy, true, a_data, transpose_a, db, false);
        } else {
          product(k, n, m, a_data, !transpose_a, dy, false, db, false);
        }
        sink.add(1, db);
      }
    };
  });
  return y;
}

}  // namespace qkv::ops
