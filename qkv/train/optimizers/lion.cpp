// Lion (Chen et al., arXiv 2302.06675): p -= lr (sign(beta1 m + (1 - beta1) g) + wd p), m = beta2 m + (1 -
// beta2) g. One state per element; rates are to be three to ten times smaller than Adam's, weight decay as
// much larger.
#include "qkv/train/optimizers/optimizers.h"

namespace qkv::optimizers {
namespace {

class Lion : public Optimizer {
 public:
  Lion(Module& module, const OptimizerConfig& config) : Optimizer(module, config) {}

 protected:
  std::vector<StateShape> state_shapes(const Slot& slot) const override {
    return {{"m", slot.parameter.shape()}};
  }
  void update(Slot& slot, const float* gradient, float lr, float grad_scale) override {
    float *p = slot.parameter.data<float>(), *m = slot.state[0].data<float>();
    const float b1 = static_cast<float>(config_.beta1), b2 = static_cast<float>(config_.beta2),
                decay = decay_of(slot);
    for_elements(slot.parameter.elements(), [&](int64_t i) {
      const float g = gradient[i] * grad_scale, mix = b1 * m[i] + (1 - b1) * g;
      const float sign = static_cast<float>((mix > 0) - (mix < 0));
      p[i] -= lr * (sign + decay * p[i]);
      m[i] = b2 * m[i] + (1 - b2) * g;
    });
  }
};

}  // namespace

std::unique_ptr<Optimizer> make_lion(Module& module, const OptimizerConfig& config) {
  return std::make_unique<Lion>(module, config);
}

}  // namespace qkv::optimizers
