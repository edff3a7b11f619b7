// What a Linear owns: something that multiplies. Dense today; block-quantized, adapter-decorated and sharded weights
// implement the same interface, so a model is never written twice.
#pragma once

#include <memory>

#include "qkv/nn/module.h"

namespace qkv {

class Weight : public Module {
 public:
  // (outputs N, inputs K).
  virtual Shape shape() const = 0;
  // y (T, N) = x (T, K) W^T + bias (N) or none; recorded on the tape.
  virtual Tensor apply(const Tensor& x, const Tensor& bias) const = 0;
  // dx (T, K) = dy (T, N) W; off the tape.
  virtual Tensor apply_backward_input(const Tensor& dy) const = 0;
  // The matrix as f32 (N, K); off the tape.
  virtual Tensor dequantize() const = 0;
  // The matrix in the type it is stored in, where apply() is nothing but the product with it; null otherwise. Inference
  // multiplies such weights together (ops::project).
  virtual const Tensor* stored() const { return nullptr; }
};

// A plain matrix: f32 master for training, any floating type for inference.
class DenseWeight : public Weight {
 public:
  explicit DenseWeight(Shape shape);  // a placeholder, to be loaded or initialized
  explicit DenseWeight(Tensor matrix);
  Shape shape() const override { return matrix_.shape(); }
  Tensor apply(const Tensor& x, const Tensor& bias) const override;
  Tensor apply_backward_input(const Tensor& dy) const override;
  Tensor dequantize() const override;
  const Tensor* stored() const override { return &matrix_; }
  void visit(const std::string& prefix, const ParameterVisitor& visitor) override;
  const Tensor& matrix() const { return matrix_; }

 private:
  Tensor matrix_;  // (N, K)
};

// A frozen matrix in any GGUF block type, usually borrowed from a mapped file. Rows are dequantized on their way into the
// product, bit for bit as ggml does; the gradient flows through to the input. Inference may round activations instead
// (Pass::activations).
class QuantizedWeight : public Weight {
 public:
  // `blocks` (N, K) has a block dtype with whole blocks to a row; Error otherwise.
  explicit QuantizedWeight(Tensor blocks);
  Shape shape() const override { return blocks_.shape(); }
  Tensor apply(const Tensor& x, const Tensor& bias) const override;
  Tensor apply_backward_input(const Tensor& dy) const override;
  Tensor dequantize() const override;
  const Tensor* stored() const override { return &blocks_; }
  void visit(const std::string& prefix, const ParameterVisitor& visitor) override;
  const Tensor& blocks() const { return blocks_; }

 private:
  Tensor blocks_;  // (N, K)
};

// The weight that works on a matrix as it is stored: dense for floating types, quantized for block types. Error for others.
std::unique_ptr<Weight> make_weight(Tensor stored);

}  // namespace qkv
