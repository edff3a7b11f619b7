// Parts of heads: the keys of latent attention are made of one part per head and one that all heads share.
#include <cstring>

#include "qkv/tensor/ops/detail.h"

namespace qkv::ops {

Tensor append_to_heads(const Tensor& x, const Tensor& shared, int64_t heads) {
  const int64_t rows = x.rows(), a = heads > 0 ? x.cols() / heads : 0, b = shared.cols(), width = a + b;
  require(heads > 0 && x.cols() == heads * a && shared.rows() == rows && shared.dtype() == x.dtype(),
          "append_to_heads: {} and {} do not go together for {} heads", describe(x), describe(shared), heads);
  Tensor y = Tensor::empty({rows, heads * width}, x.dtype());
  const auto bytes = static_cast<size_t>(dtype_bytes(x.dtype(), 1)),
             head_bytes = bytes * static_cast<size_t>(a), shared_bytes = bytes * static_cast<size_t>(b);
  parallel_for(rows, detail::row_grain(heads * width), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * heads; i < end * heads; ++i) {
      std::byte* to = y.raw() + static_cast<size_t>(i) * (head_bytes + shared_bytes);
      std::memcpy(to, x.raw() + static_cast<size_t>(i) * head_bytes, head_bytes);
      std::memcpy(to + head_bytes, shared.raw() + static_cast<size_t>(i / heads) * shared_bytes,
                  shared_bytes);
    }
  });
  record("append_to_heads", {x, shared}, {&y}, [&] {
    return [=, x_shape = x.shape(), shared_shape = shared.shape()](const std::vector<Tensor>& grads,
                                                                   GradientSink& sink) {
      const Tensor& dy = grads[0];
      Tensor dx = Tensor::empty(x_shape, dy.dtype()), dshared = Tensor::empty(shared_shape, dy.dtype());
      with_float_type(dy.dtype(), "append_to_heads", [&](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        parallel_for(rows, detail::row_grain(heads * width), [&](int64_t begin, int64_t end) {
          std::vector<float> sum(static_cast<size_t>(b));
          for (int64_t t = begin; t < end; ++t) {
            std::fill(sum.begin(), sum.end(), 0.0f);
            for (int64_t h = 0; h < heads; ++h) {
              const T* from = dy.data<T>() + (t * heads + h) * width;
              std::memcpy(dx.data<T>() + (t * heads + h) * a, from, head_bytes);
              for (int64_t c = 0; c < b; ++c) sum[static_cast<size_t>(c)] += to_float(from[a + c]);
            }
            for (int64_t c = 0; c < b; ++c)
              dshared.data<T>()[t * b + c] = from_float<T>(sum[static_cast<size_t>(c)]);
          }
        });
      });
      sink.add(0, dx);
      sink.add(1, dshared);
    };
  });
  return y;
}

}  // namespace qkv::ops
