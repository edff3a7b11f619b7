// Quantization-aware training with straight-through gradients (Bengio et al., arXiv 1308.3432; Jacob et al.,
// arXiv 1712.05877): the forward pass multiplies by what the weight will be once it is quantized, its
// gradient goes to the f32 master as if nothing had been rounded. The rounding is the one that writes
// quantized files, so the finished model quantizes to the values it was trained with.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "qkv/nn/layers.h"
#include "qkv/quant/uniform.h"

namespace qkv {

// What becomes of a matrix that is stored and read again.
class RoundTrip {
 public:
  // "q4_0" and every other GGUF block type that needs no importances; "nf4", "fp4" (blocks of 64); whole
  // numbers, symmetric: "int8" with a scale per row, "int4" per 128 columns, "int4-g32" per 32. Error naming
  // these.
  explicit RoundTrip(const std::string& name);
  const std::string& name() const { return name_; }
  // Whether rows of so many values are whole blocks.
  bool fits(int64_t columns) const;
  // (N, K) f32 -> (N, K) f32, off the tape.
  Tensor operator()(const Tensor& matrix) const;

 private:
  std::string name_;
  std::optional<DType> block_;  // a GGUF type
  std::optional<UniformScheme> uniform_;
  std::span<const float> map_;  // nf4, fp4
};

// A trainable matrix that multiplies as it will be when quantized.
class RoundedWeight : public Weight {
 public:
  RoundedWeight(std::unique_ptr<DenseWeight> master, std::shared_ptr<const RoundTrip> rounding);
  Shape shape() const override { return master_->shape(); }
  Tensor apply(const Tensor& x, const Tensor& bias) const override;
  Tensor apply_backward_input(const Tensor& dy) const override;
  // Rounded.
  Tensor dequantize() const override;
  // The master.
  void visit(const std::string& prefix, const ParameterVisitor& visitor) override {
    master_->visit(prefix, visitor);
  }

 private:
  // On the tape: the gradient goes through to the master.
  Tensor rounded() const;

  std::unique_ptr<DenseWeight> master_;
  std::shared_ptr<const RoundTrip> rounding_;
};

// Rounds every linear layer's dense weight in forward from now on. Says how many matrices it is and how many
// have rows that do not fit. Error if there are none.
struct RoundedLayers {
  int64_t rounded = 0, left = 0;
};
RoundedLayers round_in_forward(Module& model, const std::string& type);

}  // namespace qkv
