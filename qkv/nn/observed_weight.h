// A weight that shows what it multiplies to an observer: how calibration sees the inputs of a model's linear
// layers.
#pragma once

#include <functional>
#include <memory>

#include "qkv/nn/layers.h"

namespace qkv {

using InputObserver = std::function<void(const Tensor& x)>;  // x (T, K)

// A decorator over any weight.
class ObservedWeight : public Weight {
 public:
  ObservedWeight(std::unique_ptr<Weight> base, InputObserver observer);
  Shape shape() const override { return base_->shape(); }
  Tensor apply(const Tensor& x, const Tensor& bias) const override;
  Tensor apply_backward_input(const Tensor& dy) const override { return base_->apply_backward_input(dy); }
  Tensor dequantize() const override { return base_->dequantize(); }
  void visit(const std::string& prefix, const ParameterVisitor& visitor) override {
    base_->visit(prefix, visitor);
  }
  // Takes the weight out; this object is of no use afterwards.
  std::unique_ptr<Weight> release() { return std::move(base_); }

 private:
  std::unique_ptr<Weight> base_;
  InputObserver observer_;
};

// Observes a linear layer while alive.
class InputObservation {
 public:
  InputObservation(Linear& linear, InputObserver observer);
  ~InputObservation();
  InputObservation(const InputObservation&) = delete;
  InputObservation& operator=(const InputObservation&) = delete;

 private:
  Linear& linear_;
};

}  // namespace qkv
