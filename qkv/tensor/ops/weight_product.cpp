#include "qkv/tensor/ops/weight_product.h"

#include <algorithm>

#include "qkv/tensor/batch_invariance.h"
#include "qkv/tensor/convert.h"
#include "qkv/tensor/gemm.h"
#include "qkv/tensor/ops/detail.h"
#include "qkv/tensor/ops/row_streams.h"

namespace qkv::ops::detail {
namespace {

// Up to this many rows a matrix x vector kernel per row beats a general product: the weight is read from
// memory either way, and of a type that the general product must widen first more often still.
constexpr int64_t kMatvecRows = 4, kWidenedMatvecRows = 8;

// A panel stays near this size, so that it is still in the cache when it is multiplied.
constexpr int64_t kPanelBytes = int64_t{4} << 20;

MatrixOperand operand(const Tensor& t, bool transposed) {
  return {t.raw(), t.dtype(), t.cols(), transposed};
}

// The type to multiply in. A weight that must be widened goes to bf16 only where that is faster than f32.
DType product_type(const Tensor& x, const Tensor& w) {
  return x.dtype() == DType::bf16 && (w.dtype() == DType::bf16 || bf16_products_are_native()) ? DType::bf16
                                                                                              : DType::f32;
}

// Walks the rows of w in panels (P, K) of `type`, calling body(first row, panel): all of w at once if it has
// that type.
template <typename Body>
void for_each_panel(const Tensor& w, DType type, Body&& body) {
  const int64_t n = w.dim(0), k = w.cols();
  if (w.dtype() == type) return body(int64_t{0}, w);
  const int64_t row_bytes =
      std::max<int64_t>(1, static_cast<int64_t>(dtype_bytes(type, static_cast<uint64_t>(k))));
  const int64_t rows = std::min(n, std::max<int64_t>(64, kPanelBytes / row_bytes / 64 * 64));
  const Tensor panel = Tensor::empty({std::max<int64_t>(1, rows), k}, type);
  for (int64_t first = 0; first < n; first += rows) {
    const int64_t count = std::min(rows, n - first);
    Tensor part = panel.row_view(0, count);
    const Tensor stored = w.row_view(first, first + count);
    convert_elements(stored.raw(), w.dtype(), part.raw(), type, count * k);
    body(first, part);
  }
}

const std::byte* column(const Tensor& t, int64_t c) {
  return t.raw() + dtype_bytes(t.dtype(), static_cast<uint64_t>(c));
}

template <typename W>
void matvecs(const W* weight, const float* x, float* y, int64_t x_rows, int64_t n, int64_t count, int64_t k) {
  for (int64_t r = 0; r < x_rows; ++r) {
    if constexpr (std::is_same_v<W, f16>) {
      kernels().matvec_f16(weight, x + r * k, y + r * n, count, k);
    } else {
      kernels().typed<W>().matvec(weight, x + r * k, y + r * n, count, k);
    }
  }
}

}  // namespace

bool are_few_rows(int64_t rows, DType weight) {
  if (block_type(weight) || weight == DType::f16 || weight == DType::bf16) return rows <= kWidenedMatvecRows;
  return rows <= kMatvecRows && weight == DType::f32;
}

Tensor few_rows_product(const Tensor& x, const Tensor& w) {
  const int64_t rows = x.rows(), k = x.cols(), n = w.dim(0);
  const Tensor wide = x.detach().to(DType::f32);
  Tensor y = Tensor::empty({rows, n});
  const float* in = wide.data<float>();
  float* out = y.data<float>();
  const bool alone = batch_invariant();  // matvecs() has it so in any case
  const StoredRows stored = {n, static_cast<int64_t>(dtype_bytes(w.dtype(), static_cast<uint64_t>(k)))};
  stream_rows({&stored, 1}, 4, [&](size_t, int64_t begin, int64_t count, int) {
    switch (w.dtype()) {
      case DType::f32:
        return matvecs(w.data<float>() + begin * k, in, out + begin, rows, n, count, k);
      case DType::bf16:
        return matvecs(w.data<bf16>() + begin * k, in, out + begin, rows, n, count, k);
      case DType::f16:
        return matvecs(w.data<f16>() + begin * k, in, out + begin, rows, n, count, k);
      default:
        break;
    }
    const BlockType block = block_type(w.dtype()).value();
    const std::byte* blocks = w.raw() + dtype_bytes(w.dtype(), static_cast<uint64_t>(begin * k));
    const int64_t together = alone ? 1 : rows;
    for (int64_t r = 0; r < rows; r += together) {
      kernels().blocks.product[block](blocks, in + r * k, out + r * n + begin, count, k, together, n);
    }
  });
  return y.to(x.dtype());
}

void weight_product(const Tensor& x, const Tensor& w, Tensor& y) {
  const int64_t rows = x.rows(), k = x.cols(), n = w.dim(0);
  const DType type = product_type(x, w);
  const Tensor in = x.detach().to(type);
  Tensor out = type == DType::f32 && y.dtype() != DType::f32 ? Tensor::empty(y.shape()) : y;
  for_each_panel(w, type, [&](int64_t first, const Tensor& panel) {
    gemm(rows, panel.dim(0), k, operand(in, false), operand(panel, true),
         const_cast<std::byte*>(column(out, first)), out.dtype(), n, false);
  });
  if (!out.is_same(y)) convert_elements(out.raw(), out.dtype(), y.raw(), y.dtype(), y.elements());
}

void weight_product_backward(const Tensor& dy, const Tensor& w, Tensor& dx, bool accumulate) {
  const int64_t rows = dy.rows(), n = dy.cols(), k = w.cols();
  const DType type = product_type(dy, w);
  const Tensor in = dy.detach().to(type);
  // Sums over panels are in f32.
  Tensor sums = dx;
  if (dx.dtype() != DType::f32 && w.dtype() != DType::bf16)
    sums = accumulate ? dx.detach().to(DType::f32) : Tensor::empty(dx.shape());
  for_each_panel(w, type, [&](int64_t first, const Tensor& panel) {
    const MatrixOperand part{column(in, first), type, n, false};
    gemm(rows, k, panel.dim(0), part, operand(panel, false), sums.raw(), sums.dtype(), k,
         accumulate || first > 0);
  });
  if (!sums.is_same(dx)) convert_elements(sums.raw(), sums.dtype(), dx.raw(), dx.dtype(), dx.elements());
}

}  // namespace qkv::ops::detail
