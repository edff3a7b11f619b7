#include <cmath>

#include "qkv/tensor/cached_attention.h"
#include "qkv/tensor/ops/detail.h"

namespace qkv::ops {

Tensor hadamard_heads(const Tensor& x, int64_t dim) {
  require(dim > 0 && (dim & (dim - 1)) == 0 && x.cols() % dim == 0,
          "hadamard_heads: expected heads of a power of two, found {} in {}", dim, describe(x));
  Tensor out = x.dtype() == DType::f32 ? x.clone() : x.to(DType::f32);
  const auto factor = static_cast<float>(1 / std::sqrt(static_cast<double>(dim)));
  parallel_for(out.elements() / dim, detail::row_grain(dim), [&](int64_t begin, int64_t end) {
    for (int64_t head = begin; head < end; ++head) {
      float* v = out.data<float>() + head * dim;
      for (int64_t half = 1; half < dim; half *= 2) {
        for (int64_t i = 0; i < dim; i += 2 * half) {
          for (int64_t j = i; j < i + half; ++j) {
            const float a = v[j], b = v[j + half];
            v[j] = a + b;
            v[j + half] = a - b;
          }
        }
      }
      for (int64_t i = 0; i < dim; ++i) v[i] *= factor;
    }
  });
  return out.to(x.dtype());
}

}  // namespace qkv::ops
