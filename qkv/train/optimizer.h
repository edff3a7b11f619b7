// AdamW over the parameters of a module (Loshchilov & Hutter, arXiv 1711.05101).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "qkv/nn/module.h"

namespace qkv {

struct AdamWConfig {
  double lr = 1e-3, beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0.1;
  bool decay_all = false;  // also norms and biases, which are exempt by default
};

class AdamW {
 public:
  // Takes the trainable parameters in visit() order. States (two f32 per element) are made at the first step.
  AdamW(Module& module, const AdamWConfig& config);

  // The norm of all gradients together.
  double gradient_norm() const;
  // One update at learning rate config.lr * lr_factor, gradients multiplied by grad_scale first; drops the gradients.
  void step(double lr_factor, double grad_scale);
  void clear_gradients();
  int64_t steps() const { return steps_; }

  // For checkpoints: calls visitor("<parameter>.m", ...), ("<parameter>.v", ...) for every state; states must exist.
  void visit_state(const ParameterVisitor& visitor);
  // Makes the states, to be filled through visit_state.
  void restore(int64_t steps);

 private:
  struct Slot {
    std::string name;
    Tensor parameter, m, v;
    bool decay;
  };
  void make_states();
  AdamWConfig config_;
  std::vector<Slot> slots_;
  int64_t steps_ = 0;
};

}  // namespace qkv
