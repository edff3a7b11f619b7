// Gradient descent, plain and scaled, as PyTorch has it; weight decay is added to the gradient.
//   sgd       b = momentum b + g, p -= lr b                         Robbins & Monro 1951; Polyak 1964
//   nesterov  p -= lr (g + momentum b)                              Nesterov 1983; Sutskever et al. 2013
//   rmsprop   v = 0.99 v + 0.01 g^2, p -= lr g / (sqrt(v) + eps)    Hinton 2012
//   adagrad   v += g^2, p -= lr g / (sqrt(v) + eps)                 Duchi et al. 2011
#include <cmath>

#include "qkv/train/optimizers/optimizers.h"

namespace qkv::optimizers {
namespace {

class Momentum : public Optimizer {
 public:
  Momentum(Module& module, const OptimizerConfig& config, bool nesterov)
      : Optimizer(module, config), nesterov_(nesterov) {}

 protected:
  std::vector<StateShape> state_shapes(const Slot& slot) const override {
    if (config_.momentum == 0) return {};
    return {{"momentum", slot.parameter.shape()}};
  }
  void update(Slot& slot, const float* gradient, float lr, float grad_scale) override {
    float* p = slot.parameter.data<float>();
    float* b = slot.state.empty() ? nullptr : slot.state[0].data<float>();
    const float momentum = static_cast<float>(config_.momentum), decay = decay_of(slot);
    for_elements(slot.parameter.elements(), [&](int64_t i) {
      const float g = gradient[i] * grad_scale + decay * p[i];
      if (b == nullptr) {
        p[i] -= lr * g;
        return;
      }
      b[i] = momentum * b[i] + g;
      p[i] -= lr * (nesterov_ ? g + momentum * b[i] : b[i]);
    });
  }

 private:
  bool nesterov_;
};

class Scaled : public Optimizer {
 public:
  // kept 1: the sum of all squares.
  Scaled(Module& module, const OptimizerConfig& config, float kept, float added)
      : Optimizer(module, config), kept_(kept), added_(added) {}

 protected:
  std::vector<StateShape> state_shapes(const Slot& slot) const override {
    return {{"v", slot.parameter.shape()}};
  }
  void update(Slot& slot, const float* gradient, float lr, float grad_scale) override {
    float *p = slot.parameter.data<float>(), *v = slot.state[0].data<float>();
    const float decay = decay_of(slot), eps = static_cast<float>(config_.eps);
    for_elements(slot.parameter.elements(), [&](int64_t i) {
      const float g = gradient[i] * grad_scale + decay * p[i];
      v[i] = kept_ * v[i] + added_ * g * g;
      p[i] -= lr * g / (std::sqrt(v[i]) + eps);
    });
  }

 private:
  float kept_, added_;
};

}  // namespace

std::unique_ptr<Optimizer> make_sgd(Module& module, const OptimizerConfig& config) {
  return std::make_unique<Momentum>(module, config, false);
}
std::unique_ptr<Optimizer> make_nesterov(Module& module, const OptimizerConfig& config) {
  return std::make_unique<Momentum>(module, config, true);
}
std::unique_ptr<Optimizer> make_rmsprop(Module& module, const OptimizerConfig& config) {
  return std::make_unique<Scaled>(module, config, 0.99f, 0.01f);
}
std::unique_ptr<Optimizer> make_adagrad(Module& module, const OptimizerConfig& config) {
  return std::make_unique<Scaled>(module, config, 1.0f, 1.0f);
}

}  // namespace qkv::optimizers
