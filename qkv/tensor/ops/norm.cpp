// RMSNorm and LayerNorm.
#include "qkv/tensor/ops/detail.h"

namespace qkv::ops {

using detail::data_or_null;
using detail::RowReduction;

Tensor rms_norm(const Tensor& x, const Tensor& w, float eps) {
  const int64_t rows = x.rows(), cols = x.cols();
  detail::require_vector(w, cols, "rms_norm: weight");
  const auto forward = [=](const Tensor& in, const Tensor& weight, float* rstd) {
    Tensor y = Tensor::empty(in.shape(), in.dtype());
    with_float_type(in.dtype(), "rms_norm", [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      const T* source = in.data<T>();
      T* out = y.data<T>();
      parallel_for(rows, detail::row_grain(cols), [&](int64_t begin, int64_t end) {
        kernels().typed<T>().rms_norm(source + begin * cols, data_or_null(weight), out + begin * cols,
                                      rstd == nullptr ? nullptr : rstd + begin, end - begin, cols, eps);
      });
    });
    return y;
  };
  const bool on_tape = recording({x, w});
  Tensor rstd = on_tape ? Tensor::empty({rows}) : Tensor();
  Tensor y = forward(x, w, on_tape ? rstd.data<float>() : nullptr);
  record("rms_norm", {x, w}, {&y}, [&] {
    const Tensor kept = x.detach();
    const Tensor weight = w.defined() ? w.detach() : w;
    set_recompute(y, [=] { return forward(kept, weight, nullptr); });
    return [=](const std::vector<Tensor>& grads, GradientSink& sink) {
      const bool w_wanted = weight.defined() && sink.needs(1);
      Tensor dx = Tensor::empty(kept.shape(), kept.dtype());
      RowReduction sums(rows, w_wanted ? cols : 0);
      with_float_type(kept.dtype(), "rms_norm", [&](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        const T* dy = grads[0].data<T>();
        const T* source = kept.data<T>();
        T* out = dx.data<T>();
        sums.run([&](int64_t begin, int64_t end, float* partial) {
          kernels().typed<T>().rms_norm_backward(dy + begin * cols, source + begin * cols, data_or_null(weight),
                                                 rstd.data<float>() + begin, out + begin * cols, w_wanted ? partial : nullptr,
                                                 end - begin, cols);
        });
      });
      sink.add(0, dx);
      if (w_wanted) sums.add_to(sink.zeroed(1).data<float>(), 0, cols);
    };
  });
  return y;
}

Tensor layer_norm(const Tensor& x, const Tensor& w, const Tensor& bias, float eps) {
  const int64_t rows = x.rows(), cols = x.cols();
  detail::require_vector(w, cols, "layer_norm: weight");
  detail::require_vector(bias, cols, "layer_norm: bias");
  const auto forward = [=](const Tensor& in, const Tensor& weight, const Tensor& b, float* mean, float* rstd) {
    Tensor y = Tensor::empty(in.shape(), in.dtype());
    with_float_type(in.dtype(), "layer_norm", [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      const T* source = in.data<T>();
      T* out = y.data<T>();
      parallel_for(rows, detail::row_grain(cols), [&](int64_t begin, int64_t end) {
        kernels().typed<T>().layer_norm(source + begin * cols, data_or_null(weight), data_or_null(b), out + begin * cols,
                                        mean == nullptr ? nullptr : mean + begin, rstd == nullptr ? nullptr : rstd + begin,
                                        end - begin, cols, eps);
      });
    });
    return y;
  };
  const bool on_tape = recording({x, w, bias});
  Tensor mean = on_tape ? Tensor::empty({rows}) : Tensor(), rstd = on_tape ? Tensor::empty({rows}) : Tensor();
  Tensor y = forward(x, w, bias, on_tape ? mean.data<float>() : nullptr, on_tape ? rstd.data<float>() : nullptr);
  record("layer_norm", {x, w, bias}, {&y}, [&] {
    const Tensor kept = x.detach();
    const Tensor weight = w.defined() ? w.detach() : w, b = bias.defined() ? bias.detach() : bias;
    set_recompute(y, [=] { return forward(kept, weight, b, nullptr, nullptr); });
    return [=](const std::vector<Tensor>& grads, GradientSink& sink) {
      const bool w_wanted = weight.defined() && sink.needs(1), b_wanted = b.defined() && sink.needs(2);
      Tensor dx = Tensor::empty(kept.shape(), kept.dtype());
      RowReduction sums(rows, w_wanted || b_wanted ? 2 * cols : 0);  // dw, db side by side
      with_float_type(kept.dtype(), "layer_norm", [&](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        const T* dy = grads[0].data<T>();
        const T* source = kept.data<T>();
        T* out = dx.data<T>();
        sums.run([&](int64_t begin, int64_t end, float* partial) {
          kernels().typed<T>().layer_norm_backward(dy + begin * cols, source + begin * cols, data_or_null(weight),
                                                   mean.data<float>() + begin, rstd.data<float>() + begin, out + begin * cols,
                                                   w_wanted ? partial : nullptr, b_wanted ? partial + cols : nullptr, end - begin,
                                                   cols);
        });
      });
      sink.add(0, dx);
      if (w_wanted) sums.add_to(sink.zeroed(1).data<float>(), 0, cols);
      if (b_wanted) sums.add_to(sink.zeroed(2).data<float>(), cols, cols);
    };
  });
  return y;
}

}  // namespace qkv::ops
