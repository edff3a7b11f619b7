#include "qkv/nn/observed_weight.h"

namespace qkv {

ObservedWeight::ObservedWeight(std::unique_ptr<Weight> base, InputObserver observer)
    : base_(std::move(base)), observer_(std::move(observer)) {}

Tensor ObservedWeight::apply(const Tensor& x, const Tensor& bias) const {
  observer_(x);
  return base_->apply(x, bias);
}

InputObservation::InputObservation(Linear& linear, InputObserver observer) : linear_(linear) {
  // The layer is never without a weight of its shape.
  auto base = linear.exchange_weight(std::make_unique<DenseWeight>(linear.weight().shape()));
  linear.set_weight(std::make_unique<ObservedWeight>(std::move(base), std::move(observer)));
}

InputObservation::~InputObservation() {
  auto observed = linear_.exchange_weight(std::make_unique<DenseWeight>(linear_.weight().shape()));
  linear_.set_weight(dynamic_cast<ObservedWeight&>(*observed).release());
}

}  // namespace qkv
