#include "qkv/nn/weight.h"

#include "qkv/tensor/ops.h"

namespace qkv {

DenseWeight::DenseWeight(Shape shape) : matrix_(Tensor::placeholder(shape)) {}
DenseWeight::DenseWeight(Tensor matrix) : matrix_(std::move(matrix)) {}

Tensor DenseWeight::apply(const Tensor& x, const Tensor& bias) const { return ops::linear(x, matrix_, bias); }

Tensor DenseWeight::apply_backward_input(const Tensor& dy) const {
  const NoGrad off;
  return ops::matmul(dy, matrix_.detach().to(dy.dtype()));
}

Tensor DenseWeight::dequantize() const { return matrix_.detach().to(DType::f32); }

void DenseWeight::visit(const std::string& prefix, const ParameterVisitor& visitor) { visitor(prefix + "weight", matrix_); }

}  // namespace qkv
