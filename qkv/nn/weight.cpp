#include "qkv/nn/weight.h"

#include "qkv/core/error.h"
#include "qkv/tensor/ops.h"

namespace qkv {

DenseWeight::DenseWeight(Shape shape) : matrix_(Tensor::placeholder(shape)) {}
DenseWeight::DenseWeight(Tensor matrix) : matrix_(std::move(matrix)) {}

Tensor DenseWeight::apply(const Tensor& x, const Tensor& bias) const { return ops::linear(x, matrix_, bias); }

Tensor DenseWeight::apply_backward_input(const Tensor& dy) const { return ops::linear_backward_input(dy, matrix_); }

Tensor DenseWeight::dequantize() const { return matrix_.detach().to(DType::f32); }

void DenseWeight::visit(const std::string& prefix, const ParameterVisitor& visitor) { visitor(prefix + "weight", matrix_); }

QuantizedWeight::QuantizedWeight(Tensor blocks) : blocks_(std::move(blocks)) {
  require(block_type(blocks_.dtype()).has_value() && blocks_.shape().rank() == 2 && blocks_.cols() % traits(blocks_.dtype()).block_length == 0,
          "weight: expected a matrix of whole blocks, found {}", describe(blocks_));
}

Tensor QuantizedWeight::apply(const Tensor& x, const Tensor& bias) const { return ops::linear(x, blocks_, bias); }

Tensor QuantizedWeight::apply_backward_input(const Tensor& dy) const { return ops::linear_backward_input(dy, blocks_); }

Tensor QuantizedWeight::dequantize() const { return blocks_.to(DType::f32); }

void QuantizedWeight::visit(const std::string& prefix, const ParameterVisitor& visitor) { visitor(prefix + "weight", blocks_); }

std::unique_ptr<Weight> make_weight(Tensor stored) {
  if (block_type(stored.dtype())) return std::make_unique<QuantizedWeight>(std::move(stored));
  require(is_floating(stored.dtype()) && stored.shape().rank() == 2, "weight: expected a floating or block-quantized matrix, found {}",
          describe(stored));
  return std::make_unique<DenseWeight>(std::move(stored));
}

}  // namespace qkv
