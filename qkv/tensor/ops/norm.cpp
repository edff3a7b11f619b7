// RMSNorm and LayerNorm.
#include "qkv/tensor/ops/detail.h"

namespace qkv::ops {
namespace {

using detail::data_or_null;
using detail::RowReduction;

// How many rows of gains and biases the rows of x take in turn: 1 for a vector (or none), G for (G, C).
int64_t gain_rows(const Tensor& x, const Tensor& w, const Tensor& bias, const char* op) {
  int64_t rows = 1;
  for (const Tensor& t : {w, bias}) {
    if (t.defined() && t.shape().rank() == 2) rows = t.dim(0);
  }
  const Shape wanted = rows > 1 ? Shape{rows, x.cols()} : Shape{x.cols()};
  for (const Tensor& t : {w, bias}) {
    if (!t.defined() || (rows == 1 && t.elements() == x.cols())) continue;
    if (t.shape() != wanted || t.dtype() != DType::f32) {
      fail("{}: expected gains f32 {}, found {}", op, wanted.str(), describe(t));
    }
  }
  if (x.rows() % rows != 0) {
    fail("{}: gains for {} rows in turn do not fit {}", op, rows, describe(x));
  }
  return rows;
}

// Calls body(first row, rows, offset into the gains) for pieces of rows [begin, end) that share their gains.
template <typename Body>
void over_gains(int64_t begin, int64_t end, int64_t gains, int64_t cols, Body&& body) {
  if (gains == 1) return body(begin, end - begin, int64_t{0});
  for (int64_t r = begin; r < end; ++r) body(r, int64_t{1}, r % gains * cols);
}

const float* plus(const float* p, int64_t offset) {
  return p == nullptr ? nullptr : p + offset;
}

}  // namespace

Tensor rms_norm(const Tensor& x, const Tensor& w, float eps, float gain_offset) {
  const int64_t rows = x.rows(), cols = x.cols(), gains = gain_rows(x, w, {}, "rms_norm");
  Tensor gain = w.defined() ? w.detach() : w;
  if (w.defined() && gain_offset != 0) {
    gain = w.clone();
    for (int64_t i = 0; i < gain.elements(); ++i) gain.data<float>()[i] += gain_offset;
  }
  const auto forward = [=](const Tensor& in, float* rstd) {
    Tensor y = Tensor::empty(in.shape(), in.dtype());
    with_float_type(in.dtype(), "rms_norm", [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      const T* source = in.data<T>();
      T* out = y.data<T>();
      parallel_for(rows, detail::row_grain(cols), [&](int64_t begin, int64_t end) {
        over_gains(begin, end, gains, cols, [&](int64_t r, int64_t n, int64_t offset) {
          kernels().typed<T>().rms_norm(source + r * cols, plus(data_or_null(gain), offset), out + r * cols,
                                        rstd == nullptr ? nullptr : rstd + r, n, cols, eps);
        });
      });
    });
    return y;
  };
  const bool on_tape = recording({x, w});
  Tensor rstd = on_tape ? Tensor::empty({rows}) : Tensor();
  Tensor y = forward(x, on_tape ? rstd.data<float>() : nullptr);
  record("rms_norm", {x, w}, {&y}, [&] {
    const Tensor kept = x.detach();
    set_recompute(y, [=] { return forward(kept, nullptr); });
    return [=](const std::vector<Tensor>& grads, GradientSink& sink) {
      const bool w_wanted = gain.defined() && sink.needs(1);
      Tensor dx = Tensor::empty(kept.shape(), kept.dtype());
      RowReduction sums(rows, w_wanted ? gains * cols : 0);
      with_float_type(kept.dtype(), "rms_norm", [&](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        const T* dy = grads[0].data<T>();
        const T* source = kept.data<T>();
        T* out = dx.data<T>();
        sums.run([&](int64_t begin, int64_t end, float* partial) {
          over_gains(begin, end, gains, cols, [&](int64_t r, int64_t n, int64_t offset) {
            kernels().typed<T>().rms_norm_backward(
                dy + r * cols, source + r * cols, plus(data_or_null(gain), offset), rstd.data<float>() + r,
                out + r * cols, w_wanted ? partial + offset : nullptr, n, cols);
          });
        });
      });
      sink.add(0, dx);
      if (w_wanted) sums.add_to(sink.zeroed(1).data<float>(), 0, gains * cols);
    };
  });
  return y;
}

Tensor layer_norm(const Tensor& x, const Tensor& w, const Tensor& bias, float eps) {
  const int64_t rows = x.rows(), cols = x.cols(), gains = gain_rows(x, w, bias, "layer_norm");
  const auto forward = [=](const Tensor& in, const Tensor& weight, const Tensor& b, float* mean,
                           float* rstd) {
    Tensor y = Tensor::empty(in.shape(), in.dtype());
    with_float_type(in.dtype(), "layer_norm", [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      const T* source = in.data<T>();
      T* out = y.data<T>();
      parallel_for(rows, detail::row_grain(cols), [&](int64_t begin, int64_t end) {
        over_gains(begin, end, gains, cols, [&](int64_t r, int64_t n, int64_t offset) {
          kernels().typed<T>().layer_norm(source + r * cols, plus(data_or_null(weight), offset),
                                          plus(data_or_null(b), offset), out + r * cols,
                                          mean == nullptr ? nullptr : mean + r,
                                          rstd == nullptr ? nullptr : rstd + r, n, cols, eps);
        });
      });
    });
    return y;
  };
  const bool on_tape = recording({x, w, bias});
  Tensor mean = on_tape ? Tensor::empty({rows}) : Tensor(), rstd = on_tape ? Tensor::empty({rows}) : Tensor();
  Tensor y =
      forward(x, w, bias, on_tape ? mean.data<float>() : nullptr, on_tape ? rstd.data<float>() : nullptr);
  record("layer_norm", {x, w, bias}, {&y}, [&] {
    const Tensor kept = x.detach();
    const Tensor weight = w.defined() ? w.detach() : w, b = bias.defined() ? bias.detach() : bias;
    set_recompute(y, [=] { return forward(kept, weight, b, nullptr, nullptr); });
    return [=](const std::vector<Tensor>& grads, GradientSink& sink) {
      const bool w_wanted = weight.defined() && sink.needs(1), b_wanted = b.defined() && sink.needs(2);
      const int64_t width = gains * cols;
      Tensor dx = Tensor::empty(kept.shape(), kept.dtype());
      RowReduction sums(rows, w_wanted || b_wanted ? 2 * width : 0);  // dw, db side by side
      with_float_type(kept.dtype(), "layer_norm", [&](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        const T* dy = grads[0].data<T>();
        const T* source = kept.data<T>();
        T* out = dx.data<T>();
        sums.run([&](int64_t begin, int64_t end, float* partial) {
          over_gains(begin, end, gains, cols, [&](int64_t r, int64_t n, int64_t offset) {
            kernels().typed<T>().layer_norm_backward(
                dy + r * cols, source + r * cols, plus(data_or_null(weight), offset), mean.data<float>() + r,
                rstd.data<float>() + r, out + r * cols, w_wanted ? partial + offset : nullptr,
                b_wanted ? partial + width + offset : nullptr, n, cols);
          });
        });
      });
      sink.add(0, dx);
      if (w_wanted) sums.add_to(sink.zeroed(1).data<float>(), 0, width);
      if (b_wanted) sums.add_to(sink.zeroed(2).data<float>(), width, width);
    };
  });
  return y;
}

}  // namespace qkv::ops
