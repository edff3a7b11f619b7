// Rotary position embedding.
#include "qkv/tensor/ops/detail.h"

namespace qkv::ops {

Tensor rope(const Tensor& x, const RopeTable& table) {
  const int64_t rows = x.rows(), cols = x.cols();
  if (!(table.head_dim > 0 && cols % table.head_dim == 0 && table.rotary_dim % 2 == 0 && 0 <= table.offset && table.offset + table.rotary_dim <= table.head_dim && table.cos.shape() == Shape({rows, table.rotary_dim / 2}) && table.sin.shape() == table.cos.shape())) {
    fail("rope: heads of {} ({} rotated) with angles {} do not fit {}", table.head_dim, table.rotary_dim, describe(table.cos), describe(x));
  }
  const auto rotate = [=](const Tensor& in, float direction) {
    // The kernel copies what it does not rotate only behind the rotated part.
    Tensor y = table.offset == 0 ? Tensor::empty(in.shape(), in.dtype()) : in.clone();
    const Tensor& source = table.offset == 0 ? in : y;
    const int64_t half = table.rotary_dim / 2;
    with_float_type(in.dtype(), "rope", [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      parallel_for(rows, detail::row_grain(cols), [&](int64_t begin, int64_t end) {
        const int64_t first = begin * cols + table.offset;
        kernels().typed<T>().rope(source.data<T>() + first, y.data<T>() + first, table.cos.data<float>() + begin * half,
                                  table.sin.data<float>() + begin * half, end - begin, cols / table.head_dim, table.head_dim,
                                  table.rotary_dim, cols, cols, table.interleaved, direction);
      });
    });
    return y;
  };
  Tensor y = rotate(x, 1);
  record("rope", {x}, {&y}, [&] {
    return [=](const std::vector<Tensor>& grads, GradientSink& sink) { sink.add(0, rotate(grads[0], -1)); };
  });
  return y;
}

}  // namespace qkv::ops
