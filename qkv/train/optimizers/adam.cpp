// Adam and its kin, as PyTorch has them (m, v: first and second moments, ^: divided by their bias
// corrections).
//
//   adamw: p -= lr (wd p + m^ / (sqrt(v^) + eps)); Loshchilov & Hutter, arXiv 1711.05101
//
//   adam: wd p is added to the gradient instead; Kingma & Ba, arXiv 1412.6980
//
//   amsgrad: adamw with v's largest value so far; Reddi et al., arXiv 1904.09237
//
//   adamax: p -= lr m^ / u, u = max(beta2 u, |g| + eps); Kingma & Ba, the same
//
//   nadam: Nesterov's look-ahead, with a momentum that is warmed up; Dozat, ICLR 2016 workshop
//
//   radam: the adaptive rate rectified while v is uncertain; Liu et al., arXiv 1908.03265
#include <algorithm>
#include <cmath>

#include "qkv/kernels/kernels.h"
#include "qkv/train/optimizers/optimizers.h"

namespace qkv::optimizers {
namespace {

class TwoMoments : public Optimizer {
 public:
  TwoMoments(Module& module, const OptimizerConfig& config) : Optimizer(module, config) {}

 protected:
  std::vector<StateShape> state_shapes(const Slot& slot) const override {
    return {{"m", slot.parameter.shape()}, {"v", slot.parameter.shape()}};
  }
  float beta1() const { return static_cast<float>(config_.beta1); }
  float beta2() const { return static_cast<float>(config_.beta2); }
  float eps() const { return static_cast<float>(config_.eps); }
};

class AdamW : public TwoMoments {
 public:
  using TwoMoments::TwoMoments;

 protected:
  void update(Slot& slot, const float* g, float lr, float grad_scale) override {
    adamw_update(slot, g, lr, grad_scale);
  }
};

class Adam : public TwoMoments {
 public:
  using TwoMoments::TwoMoments;

 protected:
  void update(Slot& slot, const float* gradient, float lr, float grad_scale) override {
    float *p = slot.parameter.data<float>(), *m = slot.state[0].data<float>(),
          *v = slot.state[1].data<float>();
    const float decay = decay_of(slot), rate = lr / static_cast<float>(bias_correction(config_.beta1));
    const float root = std::sqrt(static_cast<float>(bias_correction(config_.beta2)));
    for_elements(slot.parameter.elements(), [&, b1 = beta1(), b2 = beta2(), e = eps()](int64_t i) {
      const float g = gradient[i] * grad_scale + decay * p[i];
      m[i] = b1 * m[i] + (1 - b1) * g;
      v[i] = b2 * v[i] + (1 - b2) * g * g;
      p[i] -= rate * m[i] / (std::sqrt(v[i]) / root + e);
    });
  }
};

class AmsGrad : public TwoMoments {
 public:
  using TwoMoments::TwoMoments;

 protected:
  std::vector<StateShape> state_shapes(const Slot& slot) const override {
    return {{"m", slot.parameter.shape()}, {"v", slot.parameter.shape()}, {"v_max", slot.parameter.shape()}};
  }
  void update(Slot& slot, const float* gradient, float lr, float grad_scale) override {
    float *p = slot.parameter.data<float>(), *m = slot.state[0].data<float>(),
          *v = slot.state[1].data<float>(), *most = slot.state[2].data<float>();
    const float kept = 1 - lr * decay_of(slot),
                rate = lr / static_cast<float>(bias_correction(config_.beta1));
    const float root = std::sqrt(static_cast<float>(bias_correction(config_.beta2)));
    for_elements(slot.parameter.elements(), [&, b1 = beta1(), b2 = beta2(), e = eps()](int64_t i) {
      const float g = gradient[i] * grad_scale;
      m[i] = b1 * m[i] + (1 - b1) * g;
      v[i] = b2 * v[i] + (1 - b2) * g * g;
      most[i] = std::max(most[i], v[i]);
      p[i] = kept * p[i] - rate * m[i] / (std::sqrt(most[i]) / root + e);
    });
  }
};

class Adamax : public TwoMoments {
 public:
  using TwoMoments::TwoMoments;

 protected:
  std::vector<StateShape> state_shapes(const Slot& slot) const override {
    return {{"m", slot.parameter.shape()}, {"u", slot.parameter.shape()}};
  }
  void update(Slot& slot, const float* gradient, float lr, float grad_scale) override {
    float *p = slot.parameter.data<float>(), *m = slot.state[0].data<float>(),
          *u = slot.state[1].data<float>();
    const float decay = decay_of(slot), rate = lr / static_cast<float>(bias_correction(config_.beta1));
    for_elements(slot.parameter.elements(), [&, b1 = beta1(), b2 = beta2(), e = eps()](int64_t i) {
      const float g = gradient[i] * grad_scale + decay * p[i];
      m[i] = b1 * m[i] + (1 - b1) * g;
      u[i] = std::max(b2 * u[i], std::abs(g) + e);
      p[i] -= rate * m[i] / u[i];
    });
  }
};

class NAdam : public TwoMoments {
 public:
  using TwoMoments::TwoMoments;

 protected:
  // Dozat's schedule of momentum.
  double momentum_at(int64_t step) const {
    return config_.beta1 * (1 - 0.5 * std::pow(0.96, static_cast<double>(step) * 4e-3));
  }
  void begin_step(double) override { product_ *= momentum_at(steps()); }
  void restored() override {
    product_ = 1;
    for (int64_t t = 1; t <= steps(); ++t) product_ *= momentum_at(t);
  }
  void update(Slot& slot, const float* gradient, float lr, float grad_scale) override {
    float *p = slot.parameter.data<float>(), *m = slot.state[0].data<float>(),
          *v = slot.state[1].data<float>();
    const double now = momentum_at(steps()), next = momentum_at(steps() + 1);
    // As PyTorch 1.13 has it, which counts the present momentum once more than the paper in the second
    // denominator.
    const auto by_gradient = static_cast<float>(lr * (1 - now) / (1 - product_)),
               by_moment = static_cast<float>(lr * next / (1 - product_ * now * next));
    const float decay = decay_of(slot), correction = static_cast<float>(bias_correction(config_.beta2));
    for_elements(slot.parameter.elements(), [&, b1 = beta1(), b2 = beta2(), e = eps()](int64_t i) {
      const float g = gradient[i] * grad_scale + decay * p[i];
      m[i] = b1 * m[i] + (1 - b1) * g;
      v[i] = b2 * v[i] + (1 - b2) * g * g;
      const float root = std::sqrt(v[i] / correction) + e;
      p[i] -= (by_gradient * g + by_moment * m[i]) / root;
    });
  }

 private:
  double product_ = 1;
};

class RAdam : public TwoMoments {
 public:
  using TwoMoments::TwoMoments;

 protected:
  void update(Slot& slot, const float* gradient, float lr, float grad_scale) override {
    float *p = slot.parameter.data<float>(), *m = slot.state[0].data<float>(),
          *v = slot.state[1].data<float>();
    const double c1 = bias_correction(config_.beta1), c2 = bias_correction(config_.beta2);
    const double longest = 2 / (1 - config_.beta2) - 1;
    const double length = longest - 2 * static_cast<double>(steps()) * (1 - c2) / c2;
    const bool certain = length > 5;
    double rate = lr / c1;
    if (certain) {
      rate *= std::sqrt((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)) *
              std::sqrt(c2);
    }
    const float decay = decay_of(slot), r = static_cast<float>(rate);
    for_elements(slot.parameter.elements(), [&, b1 = beta1(), b2 = beta2(), e = eps()](int64_t i) {
      const float g = gradient[i] * grad_scale + decay * p[i];
      m[i] = b1 * m[i] + (1 - b1) * g;
      v[i] = b2 * v[i] + (1 - b2) * g * g;
      p[i] -= certain ? r * m[i] / (std::sqrt(v[i]) + e) : r * m[i];
    });
  }
};

}  // namespace

std::unique_ptr<Optimizer> make_adamw(Module& module, const OptimizerConfig& config) {
  return std::make_unique<AdamW>(module, config);
}
std::unique_ptr<Optimizer> make_adam(Module& module, const OptimizerConfig& config) {
  return std::make_unique<Adam>(module, config);
}
std::unique_ptr<Optimizer> make_amsgrad(Module& module, const OptimizerConfig& config) {
  return std::make_unique<AmsGrad>(module, config);
}
std::unique_ptr<Optimizer> make_adamax(Module& module, const OptimizerConfig& config) {
  return std::make_unique<Adamax>(module, config);
}
std::unique_ptr<Optimizer> make_nadam(Module& module, const OptimizerConfig& config) {
  return std::make_unique<NAdam>(module, config);
}
std::unique_ptr<Optimizer> make_radam(Module& module, const OptimizerConfig& config) {
  return std::make_unique<RAdam>(module, config);
}

}  // namespace qkv::optimizers
