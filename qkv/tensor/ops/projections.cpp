#include "qkv/tensor/projections.h"

#include "qkv/tensor/convert.h"
#include "qkv/tensor/ops/detail.h"
#include "qkv/tensor/ops/rounded_rows.h"

namespace qkv::ops {
namespace {

void check(const Tensor& x, const Projection& projection) {
  const Tensor& w = *projection.weight;
  if (w.shape().rank() != 2 || x.shape().rank() != 2 || x.cols() != w.cols()) {
    fail("linear: expected x (T, {}) for a weight {}, found {}", w.shape().rank() == 2 ? w.cols() : 0, describe(w), describe(x));
  }
  if (w.is_placeholder()) {
    fail("linear: the weight {} has not been loaded", describe(w));
  }
  detail::require_vector(*projection.bias, w.dim(0), "linear: bias");
}

// In f32, and then in x's type.
void round_and_multiply(const Tensor& x, std::span<const Projection> projections, std::vector<Tensor>& y) {
  std::vector<detail::BlockProduct> products;
  products.reserve(projections.size());
  for (size_t i = 0; i < projections.size(); ++i) {
    const Tensor& w = *projections[i].weight;
    if (!detail::takes_rounded_rows(w.dtype())) continue;
    y[i] = Tensor::empty({x.rows(), w.dim(0)});
    products.push_back({&w, y[i].data<float>(), w.dim(0)});
  }
  if (products.empty()) return;
  detail::rounded_products(detail::RoundedRows(x), products);
  for (size_t i = 0; i < projections.size(); ++i) {
    if (!y[i].defined()) continue;
    const Tensor& bias = *projections[i].bias;
    if (bias.defined())
      kernels().f32.add_bias(y[i].data<float>(), bias.data<float>(), y[i].data<float>(), y[i].rows(),
                             y[i].cols());
    y[i] = y[i].to(x.dtype());
  }
}

}  // namespace

std::vector<Tensor> project(const Tensor& x, std::span<const Projection> projections,
                            Activations activations) {
  const NoGrad off;
  std::vector<Tensor> y(projections.size());
  for (const Projection& projection : projections) check(x, projection);
  if (activations == Activations::int8 && x.rows() > 0) round_and_multiply(x, projections, y);
  for (size_t i = 0; i < projections.size(); ++i) {
    if (!y[i].defined()) y[i] = linear(x, *projections[i].weight, *projections[i].bias);
  }
  return y;
}

}  // namespace qkv::ops
