#include "qkv/train/optimizer.h"

#include <cmath>
#include <cstdlib>

#include "qkv/core/error.h"
#include "qkv/core/json.h"
#include "qkv/core/parallel.h"
#include "qkv/kernels/kernels.h"
#include "qkv/text/regex.h"
#include "qkv/train/optimizers/optimizers.h"

namespace qkv {
namespace {

// Sums over a tensor are made of blocks of this size, added in order: the same bits for any number of
// threads.
constexpr int64_t kSumBlock = 1 << 16;

double sum_of_squares(const Tensor& t) {
  const int64_t n = t.elements(), blocks = (n + kSumBlock - 1) / kSumBlock;
  std::vector<double> sums(static_cast<size_t>(blocks));
  parallel_for(blocks, 1, [&](int64_t first, int64_t last) {
    for (int64_t b = first; b < last; ++b) {
      sums[static_cast<size_t>(b)] =
          kernels().sum_of_squares(t.data<float>() + b * kSumBlock, std::min(kSumBlock, n - b * kSumBlock));
    }
  });
  double total = 0;
  for (double sum : sums) total += sum;
  return total;
}

void set_zeros(float* values, int64_t n, const std::vector<uint64_t>& zeros) {
  parallel_for(static_cast<int64_t>(zeros.size()), 1 << 10, [&](int64_t begin, int64_t end) {
    for (int64_t word = begin; word < end; ++word) {
      const uint64_t bits = zeros[static_cast<size_t>(word)];
      if (bits == 0) continue;
      for (int64_t i = 64 * word; i < std::min(64 * word + 64, n); ++i) {
        if (bits >> (i % 64) & 1) values[i] = 0;
      }
    }
  });
}

// The layer in a name such as "blocks.3.attn.q.weight"; -1 if there is none.
int64_t layer_in(const std::string& name) {
  for (size_t begin = 0; begin < name.size();) {
    const size_t end = std::min(name.find('.', begin), name.size());
    const std::string part = name.substr(begin, end - begin);
    if (!part.empty() && part.size() < 9 && part.find_first_not_of("0123456789") == std::string::npos)
      return std::stoll(part);
    begin = end + 1;
  }
  return -1;
}

struct Kind {
  const char* name;
  const char* what;
  std::unique_ptr<Optimizer> (*make)(Module& module, const OptimizerConfig& config);
};

constexpr Kind kKinds[] = {
    {"adamw", "AdamW", optimizers::make_adamw},
    {"adamw-8bit", "AdamW with moments in 8 bits", optimizers::make_adamw_8bit},
    {"adamw-schedule-free", "AdamW that averages instead of decaying its rate; use schedule constant",
     optimizers::make_schedule_free},
    {"adam", "Adam, weight decay as an L2 term", optimizers::make_adam},
    {"amsgrad", "AdamW with the largest second moment so far", optimizers::make_amsgrad},
    {"adamax", "Adam with the infinity norm", optimizers::make_adamax},
    {"nadam", "Adam with Nesterov momentum", optimizers::make_nadam},
    {"radam", "rectified Adam", optimizers::make_radam},
    {"galore", "AdamW on the gradients' leading singular subspace", optimizers::make_galore},
    {"adafactor", "second moments of rows and columns only", optimizers::make_adafactor},
    {"lion", "signs of momentum", optimizers::make_lion},
    {"muon", "orthogonalized momentum for matrices, AdamW for the rest", optimizers::make_muon},
    {"sgd", "gradient descent with momentum", optimizers::make_sgd},
    {"nesterov", "gradient descent with Nesterov momentum", optimizers::make_nesterov},
    {"rmsprop", "RMSprop", optimizers::make_rmsprop},
    {"adagrad", "Adagrad", optimizers::make_adagrad},
};

}  // namespace

std::vector<std::pair<std::string, std::string>> optimizer_kinds() {
  std::vector<std::pair<std::string, std::string>> kinds;
  for (const Kind& kind : kKinds) kinds.emplace_back(kind.name, kind.what);
  return kinds;
}

std::vector<std::string> optimizer_names() {
  std::vector<std::string> names;
  for (const Kind& kind : kKinds) names.emplace_back(kind.name);
  return names;
}

std::unique_ptr<Optimizer> make_optimizer(Module& module, const OptimizerConfig& config) {
  for (const Kind& kind : kKinds) {
    if (config.kind == kind.name) return kind.make(module, config);
  }
  const std::vector<std::string> names = optimizer_names();
  fail("optimizer: expected one of {}, found '{}'{}", fmt::join(names, ", "), config.kind,
       suggestion(config.kind, names));
}

Optimizer::Optimizer(Module& module, const OptimizerConfig& config) : config_(config) {
  module.visit("", [&](const std::string& name, Tensor& parameter) {
    if (!parameter.requires_grad()) return;
    require(parameter.dtype() == DType::f32, "optimizer: parameter '{}': expected an f32 master, found {}",
            name, describe(parameter));
    slots_.push_back({name, parameter, config.decay_all || parameter.shape().rank() > 1});
  });
  require(!slots_.empty(), "optimizer: expected trainable parameters, found none");
  require(config_.ema_decay == 0 || config_.kind != "adamw-schedule-free",
          "optimizer.ema_decay: adamw-schedule-free averages by itself");
  set_rates();
}

void Optimizer::set_rates() {
  std::vector<std::pair<Regex, double>> patterns;
  for (const std::string& text : config_.rates) {
    const size_t equals = text.rfind('=');
    char* end = nullptr;
    const double factor = equals == std::string::npos ? 0 : std::strtod(text.c_str() + equals + 1, &end);
    require(end != nullptr && *end == '\0' && end != text.c_str() + equals + 1 && factor >= 0 && std::isfinite(factor),
            "optimizer.rates: expected pattern=factor, found '{}'", text);
    patterns.emplace_back(Regex(text.substr(0, equals), "optimizer.rates"), factor);
  }
  int64_t layers = 0;
  for (const Slot& slot : slots_) layers = std::max(layers, layer_in(slot.name) + 1);
  Regex::Scratch scratch;
  for (Slot& slot : slots_) {
    const int64_t layer = layer_in(slot.name);
    const bool embedding = layer < 0 && slot.name.find("embed") != std::string::npos;
    const int64_t below_top = layer >= 0 ? layers - 1 - layer : embedding ? layers : 0;
    double rate = std::pow(config_.layer_decay, static_cast<double>(below_top));
    if (slot.name.find(".lora_B") != std::string::npos) rate *= config_.lora_plus;
    for (const auto& [pattern, factor] : patterns) {
      if (!pattern.find(slot.name, 0, scratch)) continue;
      rate *= factor;
      break;
    }
    slot.rate = static_cast<float>(rate);
  }
}

void Optimizer::follow_average(Slot& slot) const {
  float* average = slot.average.data<float>();
  const float* p = slot.parameter.data<float>();
  const float share = static_cast<float>(1 - config_.ema_decay);
  parallel_for(slot.parameter.elements(), 1 << 14, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) average[i] += share * (p[i] - average[i]);
  });
}

void Optimizer::use_averages(bool on) {
  if (config_.ema_decay == 0 || !has_states_ || on == slots_[0].trained.defined()) return;
  for (Slot& slot : slots_) {
    if (on) {
      slot.trained = slot.parameter.clone();
      slot.parameter.copy_from(slot.average);
    } else {
      slot.parameter.copy_from(slot.trained);
      slot.trained = Tensor();
    }
    slot.parameter.mark_modified();
  }
}

void Optimizer::make_states() {
  for (Slot& slot : slots_) {
    slot.state.clear();
    for (const StateShape& state : state_shapes(slot))
      slot.state.push_back(Tensor::zeros(state.shape, state.type));
    if (config_.ema_decay > 0) slot.average = slot.parameter.clone();  // it begins at the parameters
  }
  has_states_ = true;
}

void bind(ConfigTable& table, OptimizerConfig& config) {
  table.bind("optimizer.name", &config.kind, "how parameters follow gradients", optimizer_names());
  table.bind("optimizer.lr", &config.lr, "peak learning rate", 0, 100);
  table.bind("optimizer.beta1", &config.beta1, "decay of the first moment", 0, 0.999999);
  table.bind("optimizer.beta2", &config.beta2, "decay of the second moment", 0, 0.999999);
  table.bind("optimizer.eps", &config.eps, "added to the root of the second moment", 0, 1);
  table.bind("optimizer.momentum", &config.momentum, "momentum of sgd, nesterov and muon", 0, 0.999999);
  table.bind("optimizer.weight_decay", &config.weight_decay, "decoupled weight decay", 0, 10);
  table.bind("optimizer.decay_all", &config.decay_all, "decay norms and biases too");
  table.bind("optimizer.layer_decay", &config.layer_decay, "each layer's rate as a part of the one's above it", 1e-3, 1);
  table.bind("optimizer.lora_plus", &config.lora_plus, "LoRA+: the rate of lora_B as a multiple of lora_A's", 1e-3, 1e4);
  table.bind("optimizer.rates", &config.rates, "factors of single parameters' rates, pattern=factor");
  table.bind("optimizer.ema_decay", &config.ema_decay,
             "evaluate and export a running mean of the parameters, with this decay; 0: the parameters", 0, 0.999999);
  table.bind("optimizer.rank", &config.rank, "galore: rank of projected gradients", 1, 65536);
  table.bind("optimizer.rank_interval", &config.rank_interval, "galore: steps between projections", 1, 1e9);
  table.bind("optimizer.rank_scale", &config.rank_scale, "galore: factor of projected updates", 1e-6, 1e6);
  table.bind("optimizer.keep_zeros", &config.keep_zeros,
             "weights of matrices that are zero stay zero: to tune a pruned model");
}

AdamWStep Optimizer::adamw_step(const Slot& slot, float lr, float grad_scale) const {
  AdamWStep step;
  step.lr = lr;
  step.beta1 = static_cast<float>(config_.beta1);
  step.beta2 = static_cast<float>(config_.beta2);
  step.eps = static_cast<float>(config_.eps);
  step.weight_decay = decay_of(slot);
  step.bias_correction1 = static_cast<float>(bias_correction(config_.beta1));
  step.bias_correction2 = static_cast<float>(bias_correction(config_.beta2));
  step.grad_scale = grad_scale;
  return step;
}

void Optimizer::adamw_update(Slot& slot, const float* g, float lr, float grad_scale) const {
  const AdamWStep step = adamw_step(slot, lr, grad_scale);
  float *p = slot.parameter.data<float>(), *m = slot.state[0].data<float>(), *v = slot.state[1].data<float>();
  parallel_for(slot.parameter.elements(), 1 << 14, [&](int64_t begin, int64_t end) {
    kernels().adamw(step, p + begin, g + begin, m + begin, v + begin, end - begin);
  });
}

// Not before the first step: a run that goes on from a checkpoint has its weights only then.
void Optimizer::find_zeros() {
  if (has_zeros_) return;
  has_zeros_ = true;
  zeros_.resize(slots_.size());
  if (!config_.keep_zeros) return;
  for (size_t i = 0; i < slots_.size(); ++i) {
    const Tensor& parameter = slots_[i].parameter;
    if (parameter.shape().rank() < 2) continue;
    const std::span<const float> values = parameter.span<float>();
    std::vector<uint64_t> bits((values.size() + 63) / 64);
    size_t count = 0;
    for (size_t j = 0; j < values.size(); ++j) {
      if (values[j] != 0) continue;
      bits[j / 64] |= uint64_t{1} << j % 64;
      ++count;
    }
    // A matrix of zeros alone is one that has yet to learn (a new adapter's).
    if (count > 0 && count < values.size()) zeros_[i] = std::move(bits);
  }
}

void Optimizer::mask_gradients() {
  find_zeros();
  for (size_t i = 0; i < slots_.size(); ++i) {
    Tensor gradient = slots_[i].parameter.grad();
    if (gradient.defined() && !zeros_[i].empty())
      set_zeros(gradient.data<float>(), gradient.elements(), zeros_[i]);
  }
}

double Optimizer::gradient_norm() const {
  double total = 0;
  for (const Slot& slot : slots_) {
    if (slot.parameter.grad().defined()) total += sum_of_squares(slot.parameter.grad());
  }
  return std::sqrt(total);
}

double Optimizer::bias_correction(double beta) const {
  return 1 - std::pow(beta, static_cast<double>(steps_));
}

void Optimizer::step(double lr_factor, double grad_scale) {
  if (!has_states_) make_states();
  mask_gradients();
  ++steps_;
  begin_step(config_.lr * lr_factor);
  for (size_t i = 0; i < slots_.size(); ++i) {
    Slot& slot = slots_[i];
    const Tensor gradient = slot.parameter.grad();
    if (!gradient.defined()) continue;
    update(slot, gradient.data<float>(), static_cast<float>(config_.lr * lr_factor) * slot.rate,
           static_cast<float>(grad_scale));
    // Muon mixes the columns and rows of a matrix; the other methods leave what has no gradient at zero.
    if (!zeros_[i].empty()) set_zeros(slot.parameter.data<float>(), slot.parameter.elements(), zeros_[i]);
    slot.parameter.mark_modified();
    if (slot.average.defined()) follow_average(slot);
  }
  clear_gradients();
}

void Optimizer::clear_gradients() {
  for (Slot& slot : slots_) slot.parameter.clear_grad();
}

void Optimizer::visit_state(const ParameterVisitor& visitor) {
  for (Slot& slot : slots_) {
    const std::vector<StateShape> shapes = state_shapes(slot);
    for (size_t i = 0; i < slot.state.size(); ++i) visitor(slot.name + "." + shapes[i].name, slot.state[i]);
    if (slot.average.defined()) visitor(slot.name + ".average", slot.average);
  }
}

void Optimizer::restore(int64_t steps, const std::vector<double>& scalars) {
  steps_ = steps;
  if (steps > 0) make_states();
  if (steps > 0 && !scalars.empty()) set_scalars(scalars);
  restored();
}

}  // namespace qkv
