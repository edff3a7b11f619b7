#include "qkv/train/rank_allocation.h"

#include <algorithm>
#include <cmath>

#include "qkv/core/error.h"
#include "qkv/tensor/ops.h"

namespace qkv {
namespace {

constexpr float kKept = 0.85f;  // of running means: beta1 and beta2 of the paper
constexpr double kGamma = 0.1;

// Adds the gradient of factor |X X^T - I|^2, or with `columns` of |X^T X - I|^2, to that of x.
void draw_to_orthonormal(Tensor x, bool columns, double factor) {
  const Tensor gradient = x.grad();
  if (!gradient.defined()) return;
  const NoGrad off;
  const Tensor value = x.detach();
  Tensor gram = columns ? ops::matmul(value, value, true, false) : ops::matmul(value, value, false, true);
  for (int64_t i = 0; i < gram.rows(); ++i) gram.data<float>()[i * gram.cols() + i] -= 1;
  const Tensor slope = columns ? ops::matmul(value, gram) : ops::matmul(gram, value);
  Tensor target = gradient;
  kernels().axpy(static_cast<float>(4 * factor), slope.data<float>(), target.data<float>(), slope.elements());
}

}  // namespace

void RankAllocator::Importance::note(const Tensor& values) {
  if (!mean.defined()) {
    mean = Tensor::zeros(values.shape());
    uncertainty = Tensor::zeros(values.shape());
  }
  const Tensor gradient = values.grad();
  if (!gradient.defined()) return;
  const float *w = values.data<float>(), *g = gradient.data<float>();
  float *m = mean.data<float>(), *u = uncertainty.data<float>();
  for (int64_t i = 0; i < values.elements(); ++i) {
    const float sensitivity = std::abs(w[i] * g[i]);
    m[i] = kKept * m[i] + (1 - kKept) * sensitivity;
    u[i] = kKept * u[i] + (1 - kKept) * std::abs(sensitivity - m[i]);
  }
}

double RankAllocator::Importance::of(int64_t i) const {
  return static_cast<double>(mean.data<float>()[i]) * static_cast<double>(uncertainty.data<float>()[i]);
}

RankAllocator::RankAllocator(Adapter& adapter, int64_t target_rank, int64_t steps) : steps_(steps) {
  for (const AdapterModule& module : adapter.modules()) {
    require(module.gates.defined(),
            "ranks: expected an adapter with gates (adalora), found module '{}' without", module.name);
    ModuleState state{&module, {}, {}, std::vector<Importance>(module.parts.size())};
    state.gates.note(module.gates);
    state.a.note(module.a);
    for (size_t i = 0; i < module.parts.size(); ++i) state.b[i].note(module.parts[i].b);
    modules_.push_back(std::move(state));
    all_ += module.rank;
  }
  target_ = std::min(all_, target_rank * static_cast<int64_t>(modules_.size()));
}

void RankAllocator::before_update() {
  const double factor = kGamma / (2 * static_cast<double>(modules_.size()));
  for (ModuleState& state : modules_) {
    const AdapterModule& module = *state.module;
    state.gates.note(module.gates);
    state.a.note(module.a);
    draw_to_orthonormal(module.a, false, factor);
    for (size_t i = 0; i < module.parts.size(); ++i) {
      state.b[i].note(module.parts[i].b);
      draw_to_orthonormal(module.parts[i].b, true, factor);
    }
  }
}

double RankAllocator::importance_of(const ModuleState& state, int64_t rank) const {
  const AdapterModule& module = *state.module;
  double of_a = 0, of_b = 0;
  for (int64_t c = 0; c < module.inputs; ++c) of_a += state.a.of(rank * module.inputs + c);
  for (size_t i = 0; i < module.parts.size(); ++i) {
    for (int64_t row = 0; row < module.parts[i].outputs; ++row)
      of_b += state.b[i].of(row * module.rank + rank);
  }
  return state.gates.of(rank) + of_a / static_cast<double>(module.inputs) +
         of_b / static_cast<double>(module.outputs);
}

int64_t RankAllocator::budget(int64_t step) const {
  const double begin = 0.1 * static_cast<double>(steps_), end = 0.7 * static_cast<double>(steps_);
  const auto t = static_cast<double>(step);
  if (t <= begin) return all_;
  if (t >= end) return target_;
  const double left = std::pow(1 - (t - begin) / (end - begin), 3);
  return target_ + static_cast<int64_t>(std::llround(static_cast<double>(all_ - target_) * left));
}

void RankAllocator::after_update(int64_t step) {
  const int64_t kept = budget(step);
  if (kept == all_) return;
  struct Triplet {
    double importance;
    size_t module;
    int64_t rank;
  };
  std::vector<Triplet> triplets;
  for (size_t m = 0; m < modules_.size(); ++m) {
    for (int64_t r = 0; r < modules_[m].module->rank; ++r)
      triplets.push_back({importance_of(modules_[m], r), m, r});
  }
  std::stable_sort(triplets.begin(), triplets.end(),
                   [](const Triplet& a, const Triplet& b) { return a.importance > b.importance; });
  for (size_t i = static_cast<size_t>(kept); i < triplets.size(); ++i) {
    Tensor gates = modules_[triplets[i].module].module->gates;
    gates.data<float>()[triplets[i].rank] = 0;
    gates.mark_modified();
  }
}

void RankAllocator::visit(const std::string& prefix, const ParameterVisitor& visitor) {
  const auto both = [&](const std::string& name, Importance& importance) {
    visitor(prefix + name + ".mean", importance.mean);
    visitor(prefix + name + ".uncertainty", importance.uncertainty);
  };
  for (ModuleState& state : modules_) {
    const std::string& name = state.module->name;
    both(name + ".e", state.gates);
    both(name + ".a", state.a);
    for (size_t i = 0; i < state.b.size(); ++i) both(name + ".b" + std::to_string(i), state.b[i]);
  }
}

}  // namespace qkv
