// Token embedding: rows of a table; the gradient scatters back.
#include <cstring>

#include "qkv/tensor/convert.h"
#include "qkv/tensor/ops/detail.h"

namespace qkv::ops {
namespace {

void copy_row(const Tensor& table, int64_t row, Tensor& y, int64_t t) {
  const int64_t cols = table.cols();
  if (table.dtype() == y.dtype()) {
    const auto bytes = static_cast<int64_t>(dtype_bytes(table.dtype(), static_cast<uint64_t>(cols)));
    std::memcpy(y.raw() + t * bytes, table.raw() + row * bytes, static_cast<size_t>(bytes));
    return;
  }
  if (y.dtype() == DType::f32) return widen(table.raw(), table.dtype(), row * cols, cols, y.data<float>() + t * cols);
  const Tensor stored = table.row_view(row, row + 1);
  convert_elements(stored.raw(), table.dtype(), y.raw() + 2 * t * cols, y.dtype(), cols);
}

}  // namespace

Tensor embedding(const std::vector<int32_t>& ids, const Tensor& table, DType type) {
  if (table.shape().rank() != 2) {
    fail("embedding: expected a table (V, C), found {}", describe(table));
  }
  require(type == DType::f32 || type == DType::bf16, "embedding: expected f32 or bf16 activations, found {}", name(type));
  const int64_t rows = static_cast<int64_t>(ids.size()), cols = table.cols(), vocabulary = table.dim(0);
  Tensor y = Tensor::empty({rows, cols}, type);
  for (int64_t t = 0; t < rows; ++t) {
    const int32_t id = ids[static_cast<size_t>(t)];
    require(0 <= id && id < vocabulary, "embedding: token {}: expected an id below {}, found {}", t, vocabulary, id);
    copy_row(table, id, y, t);
  }
  record("embedding", {table}, {&y}, [&] {
    // Sums are in float: in the gradient itself, unless the table is a low-precision activation.
    const bool in_place = table.dtype() == DType::f32 || table.node() == nullptr;
    return [=, shape = table.shape()](const std::vector<Tensor>& grads, GradientSink& sink) {
      Tensor total = in_place ? sink.zeroed(0) : Tensor::zeros(shape);
      float* sums = total.data<float>();
      const Tensor dy = grads[0].to(DType::f32);
      // Tokens in order, split by columns: every element's sum has the same order for any number of threads.
      parallel_for(cols, 32, [&](int64_t begin, int64_t end) {
        for (int64_t t = 0; t < rows; ++t) {
          kernels().axpy(1.0f, dy.data<float>() + t * cols + begin, sums + ids[static_cast<size_t>(t)] * cols + begin, end - begin);
        }
      });
      if (!in_place) sink.add(0, std::move(total));
    };
  });
  return y;
}

}  // namespace qkv::ops
