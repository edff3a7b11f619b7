// Optimizers over the parameters of a module, behind one interface: AdamW by default, others in optimizers/,
// each with its paper.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "qkv/core/config.h"
#include "qkv/kernels/kernels.h"
#include "qkv/nn/module.h"

namespace qkv {

struct OptimizerConfig {
  double lr = 1e-3, beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0.1;
  bool decay_all = false;      // also norms and biases, which are exempt by default
  std::string kind = "adamw";  // one of optimizer_kinds()
  double momentum = 0.9;       // sgd, nesterov, muon
  // Weights that are zero when training begins stay zero, in matrices that have others: a pruned model is
  // tuned and stays pruned.
  bool keep_zeros = false;
  int64_t rank = 128, rank_interval = 200;  // galore: of the projection, and steps until it is found again
  double rank_scale = 0.25;                 // galore: of the projected update

  // Learning rates of single parameters, as factors of lr: layer l of L has layer_decay^(L - 1 - l), embeddings
  // that of a layer before the first; LoRA's B has lora_plus (LoRA+: Hayou et al., arXiv 2402.12354);
  // "pattern=factor", a regular expression that is found in the parameter's name, the first that is.
  double layer_decay = 1, lora_plus = 1;
  std::vector<std::string> rates = {};
  // > 0: what is evaluated and exported is the running mean of the parameters, ema <- d ema + (1 - d) p.
  double ema_decay = 0;
};

// The keys "optimizer.*".
void bind(ConfigTable& table, OptimizerConfig& config);

// For every kind, its name and what it is; in the order of help texts.
std::vector<std::pair<std::string, std::string>> optimizer_kinds();
std::vector<std::string> optimizer_names();

class Optimizer {
 public:
  virtual ~Optimizer() = default;
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  // With keep_zeros, what pulls at weights that stay zero is taken out of the gradients; before
  // gradient_norm().
  void mask_gradients();
  // The norm of all gradients together.
  double gradient_norm() const;
  // One update at learning rate config.lr * lr_factor, gradients multiplied by grad_scale first; drops the
  // gradients. Parameters without a gradient stay as they are.
  void step(double lr_factor, double grad_scale);
  void clear_gradients();
  int64_t steps() const { return steps_; }

  // For checkpoints: calls visitor("<parameter>.m", ...), ... for every state; none before the first step.
  void visit_state(const ParameterVisitor& visitor);
  // What is not a tensor.
  virtual std::vector<double> scalars() const { return {}; }
  // Makes the states as after `steps` steps, to be filled through visit_state.
  void restore(int64_t steps, const std::vector<double>& scalars = {});

  // Schedule-free methods and those with an ema_decay evaluate and export other values than those they train: with
  // `on` they are put into the parameters, without the trained ones are back, to the bit.
  virtual void use_averages(bool on);

 protected:
  struct Slot {
    std::string name;
    Tensor parameter;
    bool decay;
    std::vector<Tensor> state = {};  // in the order of state_shapes()
    float rate = 1;                  // of its learning rate
    Tensor average = {};             // with an ema_decay
    Tensor trained = {};             // while the average is in the parameter
  };
  struct StateShape {
    std::string name;
    Shape shape;
    DType type = DType::f32;
  };

  // Takes the trainable parameters in visit() order. States (zeros) are made at the first step.
  Optimizer(Module& module, const OptimizerConfig& config);
  // The states of one parameter.
  virtual std::vector<StateShape> state_shapes(const Slot& slot) const = 0;
  // Called before the slots of a step are updated, with steps() being the number of this one.
  virtual void begin_step(double /*lr*/) {}
  // Updates slot.parameter; `gradient` is to be multiplied by grad_scale.
  virtual void update(Slot& slot, const float* gradient, float lr, float grad_scale) = 0;
  virtual void set_scalars(const std::vector<double>&) {}
  // After restore(): what follows from steps() alone.
  virtual void restored() {}

  // AdamW, which other methods fall back on for some parameters: its settings for this step, and the whole
  // update of a slot whose states begin with the two moments.
  AdamWStep adamw_step(const Slot& slot, float lr, float grad_scale) const;
  void adamw_update(Slot& slot, const float* gradient, float lr, float grad_scale) const;

  float decay_of(const Slot& slot) const { return slot.decay ? static_cast<float>(config_.weight_decay) : 0; }
  // 1 - beta^steps().
  double bias_correction(double beta) const;

  OptimizerConfig config_;
  std::vector<Slot> slots_;

 private:
  void make_states();
  void set_rates();
  void follow_average(Slot& slot) const;
  void find_zeros();
  std::vector<std::vector<uint64_t>> zeros_;  // of each slot, a bit for each weight that stays zero; or none
  bool has_zeros_ = false;
  int64_t steps_ = 0;
  bool has_states_ = false;
};

// Error that lists the kinds and suggests the nearest.
std::unique_ptr<Optimizer> make_optimizer(Module& module, const OptimizerConfig& config);

}  // namespace qkv
