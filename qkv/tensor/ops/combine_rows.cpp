// The weighted sum of chosen rows: how the outputs of a token's experts come together.
#include "qkv/tensor/ops/detail.h"

namespace qkv::ops {

Tensor combine_rows(const Tensor& x, const std::vector<int64_t>& rows, const Tensor& weights) {
  const int64_t tokens = weights.rows(), k = weights.cols(), cols = x.cols();
  require(weights.dtype() == DType::f32 && static_cast<int64_t>(rows.size()) == tokens * k,
          "combine_rows: expected f32 weights for {} rows, found {}", rows.size(), describe(weights));
  std::vector<bool> taken(static_cast<size_t>(x.rows()));
  for (const int64_t row : rows) {
    require(0 <= row && row < x.rows() && !taken[static_cast<size_t>(row)],
            "combine_rows: expected every row below {} once at most, found {}", x.rows(), row);
    taken[static_cast<size_t>(row)] = true;
  }
  Tensor y = Tensor::empty({tokens, cols}, x.dtype());
  with_float_type(x.dtype(), "combine_rows", [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    parallel_for(tokens, detail::row_grain(cols * k), [&](int64_t begin, int64_t end) {
      std::vector<float> sum(static_cast<size_t>(cols));
      for (int64_t t = begin; t < end; ++t) {
        std::fill(sum.begin(), sum.end(), 0.0f);
        for (int64_t j = 0; j < k; ++j) {
          const float weight = weights.data<float>()[t * k + j];
          const T* in = x.data<T>() + rows[static_cast<size_t>(t * k + j)] * cols;
          for (int64_t c = 0; c < cols; ++c) sum[static_cast<size_t>(c)] += weight * to_float(in[c]);
        }
        T* out = y.data<T>() + t * cols;
        for (int64_t c = 0; c < cols; ++c) out[c] = from_float<T>(sum[static_cast<size_t>(c)]);
      }
    });
  });
  record("combine_rows", {x, weights}, {&y}, [&] {
    const Saved saved_x(x), saved_weights(weights);
    return [=](const std::vector<Tensor>& grads, GradientSink& sink) {
      const Tensor kept = saved_x.take(), factors = saved_weights.take();
      Tensor dx = Tensor::zeros(kept.shape(), kept.dtype());
      Tensor dweights = Tensor::empty(factors.shape());
      with_float_type(kept.dtype(), "combine_rows", [&](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        parallel_for(tokens, detail::row_grain(cols * k), [&](int64_t begin, int64_t end) {
          for (int64_t i = begin * k; i < end * k; ++i) {
            const int64_t row = rows[static_cast<size_t>(i)];
            const T* dy = grads[0].data<T>() + i / k * cols;
            const T* in = kept.data<T>() + row * cols;
            const float weight = factors.data<float>()[i];
            float dot = 0;
            for (int64_t c = 0; c < cols; ++c) {
              dot += to_float(dy[c]) * to_float(in[c]);
              dx.data<T>()[row * cols + c] = from_float<T>(weight * to_float(dy[c]));
            }
            dweights.data<float>()[i] = dot;
          }
        });
      });
      sink.add(0, dx);
      sink.add(1, dweights);
    };
  });
  return y;
}

}  // namespace qkv::ops
