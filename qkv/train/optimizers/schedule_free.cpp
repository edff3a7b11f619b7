// Schedule-free AdamW (Defazio et al., arXiv 2405.15682): gradients are taken at y = (1 - beta1) z + beta1 x,
// z moves by them, x is the average of the z, weighted by squared learning rates, and is what is evaluated
// and exported. Parameters hold y while training. No decay of the rate is needed, nor a length of the run
// known.
#include <cmath>

#include "qkv/core/error.h"
#include "qkv/train/optimizers/optimizers.h"

namespace qkv::optimizers {
namespace {

class ScheduleFree : public Optimizer {
 public:
  ScheduleFree(Module& module, const OptimizerConfig& config) : Optimizer(module, config) {}

  std::vector<double> scalars() const override { return {largest_lr_, weight_sum_}; }

  void use_averages(bool on) override {
    if (on == !trained_.empty() || (on && steps() == 0)) return;
    size_t index = 0;
    for (Slot& slot : slots_) {
      if (on) {
        trained_.push_back(slot.parameter.clone());
        float* p = slot.parameter.data<float>();
        const float* z = slot.state[0].data<float>();
        // x from y and z.
        const float back = static_cast<float>(1 - 1 / config_.beta1);
        for_elements(slot.parameter.elements(), [&](int64_t i) { p[i] += back * (z[i] - p[i]); });
      } else {
        slot.parameter.copy_from(trained_[index++]);
      }
      slot.parameter.mark_modified();
    }
    if (!on) trained_.clear();
  }

 protected:
  std::vector<StateShape> state_shapes(const Slot& slot) const override {
    return {{"z", slot.parameter.shape()}, {"v", slot.parameter.shape()}};
  }
  void begin_step(double lr) override {
    require(trained_.empty(), "schedule-free: a step was taken while the averages are in the parameters");
    if (steps() == 1) {
      for (Slot& slot : slots_) slot.state[0].copy_from(slot.parameter);
    }
    largest_lr_ = std::max(largest_lr_, lr);
    const double weight = largest_lr_ * largest_lr_;
    weight_sum_ += weight;
    share_ = weight_sum_ > 0 ? weight / weight_sum_ : 0;
  }
  void update(Slot& slot, const float* gradient, float lr, float grad_scale) override {
    float *y = slot.parameter.data<float>(), *z = slot.state[0].data<float>(),
          *v = slot.state[1].data<float>();
    const float b2 = static_cast<float>(config_.beta2), eps = static_cast<float>(config_.eps),
                decay = decay_of(slot);
    const float correction = static_cast<float>(bias_correction(config_.beta2)),
                share = static_cast<float>(share_);
    const float back = lr * (static_cast<float>(config_.beta1) * (1 - share) - 1);
    for_elements(slot.parameter.elements(), [&](int64_t i) {
      const float g = gradient[i] * grad_scale;
      v[i] = b2 * v[i] + (1 - b2) * g * g;
      const float direction = g / (std::sqrt(v[i] / correction) + eps) + decay * y[i];
      y[i] += share * (z[i] - y[i]) + back * direction;
      z[i] -= lr * direction;
    });
  }
  void set_scalars(const std::vector<double>& scalars) override {
    require(scalars.size() == 2, "schedule-free: expected 2 numbers of state, found {}", scalars.size());
    largest_lr_ = scalars[0];
    weight_sum_ = scalars[1];
  }

 private:
  double largest_lr_ = 0, weight_sum_ = 0, share_ = 0;
  std::vector<Tensor> trained_;  // y, while the averages are in the parameters
};

}  // namespace

std::unique_ptr<Optimizer> make_schedule_free(Module& module, const OptimizerConfig& config) {
  return std::make_unique<ScheduleFree>(module, config);
}

}  // namespace qkv::optimizers
