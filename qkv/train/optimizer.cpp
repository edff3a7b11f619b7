#include "qkv/train/optimizer.h"

#include <cmath>

#include "qkv/core/error.h"
#include "qkv/core/parallel.h"
#include "qkv/kernels/kernels.h"

namespace qkv {
namespace {

constexpr int64_t kGrain = 1 << 14;
// Sums over a tensor are made of blocks of this size, added in order: the same bits for any number of threads.
constexpr int64_t kSumBlock = 1 << 16;

double sum_of_squares(const Tensor& t) {
  const int64_t n = t.elements(), blocks = (n + kSumBlock - 1) / kSumBlock;
  std::vector<double> sums(static_cast<size_t>(blocks));
  parallel_for(blocks, 1, [&](int64_t first, int64_t last) {
    for (int64_t b = first; b < last; ++b) {
      sums[static_cast<size_t>(b)] = kernels().sum_of_squares(t.data<float>() + b * kSumBlock, std::min(kSumBlock, n - b * kSumBlock));
    }
  });
  double total = 0;
  for (double sum : sums) total += sum;
  return total;
}

}  // namespace

AdamW::AdamW(Module& module, const AdamWConfig& config) : config_(config) {
  module.visit("", [&](const std::string& name, Tensor& parameter) {
    if (!parameter.requires_grad()) return;
    require(parameter.dtype() == DType::f32, "optimizer: parameter '{}': expected an f32 master, found {}", name, describe(parameter));
    slots_.push_back({name, parameter, {}, {}, config.decay_all || parameter.shape().rank() > 1});
  });
  require(!slots_.empty(), "optimizer: expected trainable parameters, found none");
}

void AdamW::make_states() {
  for (auto& slot : slots_) {
    slot.m = Tensor::zeros(slot.parameter.shape());
    slot.v = Tensor::zeros(slot.parameter.shape());
  }
}

double AdamW::gradient_norm() const {
  double total = 0;
  for (const auto& slot : slots_) {
    if (slot.parameter.grad().defined()) total += sum_of_squares(slot.parameter.grad());
  }
  return std::sqrt(total);
}

void AdamW::step(double lr_factor, double grad_scale) {
  if (!slots_[0].m.defined()) make_states();
  ++steps_;
  AdamWStep step;
  step.lr = static_cast<float>(config_.lr * lr_factor);
  step.beta1 = static_cast<float>(config_.beta1);
  step.beta2 = static_cast<float>(config_.beta2);
  step.eps = static_cast<float>(config_.eps);
  step.bias_correction1 = static_cast<float>(1 - std::pow(config_.beta1, static_cast<double>(steps_)));
  step.bias_correction2 = static_cast<float>(1 - std::pow(config_.beta2, static_cast<double>(steps_)));
  step.grad_scale = static_cast<float>(grad_scale);
  for (auto& slot : slots_) {
    const Tensor gradient = slot.parameter.grad();
    if (!gradient.defined()) continue;
    step.weight_decay = slot.decay ? static_cast<float>(config_.weight_decay) : 0;
    float* p = slot.parameter.data<float>();
    float* m = slot.m.data<float>();
    float* v = slot.v.data<float>();
    const float* g = gradient.data<float>();
    parallel_for(slot.parameter.elements(), kGrain, [&](int64_t begin, int64_t end) {
      kernels().adamw(step, p + begin, g + begin, m + begin, v + begin, end - begin);
    });
    slot.parameter.mark_modified();
  }
  clear_gradients();
}

void AdamW::clear_gradients() {
  for (auto& slot : slots_) slot.parameter.clear_grad();
}

void AdamW::visit_state(const ParameterVisitor& visitor) {
  for (auto& slot : slots_) {
    if (!slot.m.defined()) continue;
    visitor(slot.name + ".m", slot.m);
    visitor(slot.name + ".v", slot.v);
  }
}

void AdamW::restore(int64_t steps) {
  steps_ = steps;
  if (steps > 0) make_states();
}

}  // namespace qkv
