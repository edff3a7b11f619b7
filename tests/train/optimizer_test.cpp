// Every optimizer: PyTorch's six steps where it has them, resuming to the bit, and getting somewhere.
#include "qkv/train/optimizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "qkv/core/error.h"
#include "qkv/core/rng.h"
#include "tests/support/golden_safetensors.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

// A matrix and a vector.
struct TwoParameters : Module {
  Tensor matrix, vector;
  TwoParameters(Tensor m, Tensor v) : matrix(std::move(m)), vector(std::move(v)) {
    matrix.set_requires_grad(true);
    vector.set_requires_grad(true);
  }
  void visit(const std::string& prefix, const ParameterVisitor& visitor) override {
    visitor(prefix + "blocks.0.w.weight", matrix);
    visitor(prefix + "blocks.0.w.bias", vector);
  }
};

struct Reference {
  const char* name;
  OptimizerConfig config;
};

OptimizerConfig config_of(const char* kind, double lr, double beta1, double beta2, double eps, double decay,
                          double momentum = 0) {
  return {lr, beta1, beta2, eps, decay, false, kind, momentum};
}

// Settings of tests/golden/ops/ops.json.
const Reference kReferences[] = {
    {"adamw", config_of("adamw", 0.01, 0.9, 0.95, 1e-8, 0.1)},
    {"adam_l2", config_of("adam", 0.01, 0.9, 0.999, 1e-8, 0.1)},
    {"adamw_amsgrad", config_of("amsgrad", 0.01, 0.9, 0.999, 1e-8, 0.01)},
    {"sgd", config_of("sgd", 0.1, 0, 0, 0, 0)},
    {"sgd_mom", config_of("sgd", 0.1, 0, 0, 0, 0.01, 0.9)},
    {"sgd_nesterov", config_of("nesterov", 0.1, 0, 0, 0, 0, 0.9)},
    {"rmsprop", config_of("rmsprop", 0.01, 0, 0, 1e-8, 0)},
    {"adagrad", config_of("adagrad", 0.01, 0, 0, 1e-10, 0)},
    {"adamax", config_of("adamax", 0.01, 0.9, 0.999, 1e-8, 0)},
    {"nadam", config_of("nadam", 0.01, 0.9, 0.999, 1e-8, 0)},
    {"radam", config_of("radam", 0.01, 0.9, 0.999, 1e-8, 0)},
};

TEST(Optimizers, SixStepsOfPyTorch) {
  const test::GoldenSafetensors file(test::golden("ops/ops.safetensors"));
  const std::vector<double> start = file.values("optim.p0"), gradients = file.values("optim.grads");
  for (const Reference& reference : kReferences) {
    SCOPED_TRACE(reference.name);
    TwoParameters module(Tensor::from(std::vector<float>(start.begin(), start.end()), Shape{7, 5}),
                         Tensor::zeros({3}));
    const auto optimizer = make_optimizer(module, reference.config);
    const std::vector<double> wanted = file.values(std::string("optim.") + reference.name);
    for (size_t step = 0; step < 6; ++step) {
      const auto begin = gradients.begin() + static_cast<std::ptrdiff_t>(step * 35);
      module.matrix.set_grad(Tensor::from(std::vector<float>(begin, begin + 35), Shape{7, 5}));
      optimizer->step(1, 1);
      // Float against double: an update of at most lr, each step rounded to 2^-24 of a parameter near 1 and
      // of the update.
      for (size_t i = 0; i < 35; ++i)
        EXPECT_NEAR(module.matrix.data<float>()[i], wanted[step * 35 + i], 2e-6)
            << "step " << step << ", element " << i;
    }
  }
}

// The gradient of |p - target|^2 / 2, with a little noise that is a function of the step.
void set_gradients(TwoParameters& module, int64_t step) {
  Rng rng(9, static_cast<uint64_t>(step));
  for (Tensor* p : {&module.matrix, &module.vector}) {
    Tensor g = Tensor::empty(p->shape());
    for (int64_t i = 0; i < g.elements(); ++i) {
      const float target = std::sin(static_cast<float>(i));
      g.data<float>()[i] = p->data<float>()[i] - target + 0.01f * rng.normal();
    }
    p->set_grad(g);
  }
}

double distance(const TwoParameters& module) {
  double sum = 0;
  for (const Tensor* p : {&module.matrix, &module.vector}) {
    for (int64_t i = 0; i < p->elements(); ++i) {
      const double d = static_cast<double>(p->data<float>()[i]) - std::sin(static_cast<double>(i));
      sum += d * d;
    }
  }
  return std::sqrt(sum);
}

// Large enough for 8-bit moments, and no multiple of their blocks.
TwoParameters fresh() {
  return {Tensor::zeros({70, 61}), Tensor::zeros({30})};
}

class EveryOptimizer : public testing::TestWithParam<std::string> {
 protected:
  OptimizerConfig config() const {
    OptimizerConfig result;
    result.kind = GetParam();
    // An update of Muon is 0.2 sqrt(70) times an orthogonal matrix, whose elements are about 1 / sqrt(70).
    const bool descent = GetParam() == "sgd" || GetParam() == "nesterov";
    result.lr = GetParam() == "muon" ? 0.05 : descent ? 0.05 : 0.02;
    result.weight_decay = 0;
    return result;
  }
};

TEST_P(EveryOptimizer, GetsNearer) {
  TwoParameters module = fresh();
  const double before = distance(module);
  const auto optimizer = make_optimizer(module, config());
  for (int64_t step = 0; step < 150; ++step) {
    set_gradients(module, step);
    optimizer->step(1, 1);
  }
  optimizer->use_averages(true);
  EXPECT_LT(distance(module), (GetParam() == "adagrad" || GetParam() == "muon" ? 0.8 : 0.2) * before);
}

TEST_P(EveryOptimizer, ResumesToTheBit) {
  TwoParameters whole = fresh(), halves = fresh();
  const auto straight = make_optimizer(whole, config());
  for (int64_t step = 0; step < 8; ++step) {
    set_gradients(whole, step);
    straight->step(1.0 / static_cast<double>(step + 1), 0.5);
  }
  auto first = make_optimizer(halves, config());
  for (int64_t step = 0; step < 4; ++step) {
    set_gradients(halves, step);
    first->step(1.0 / static_cast<double>(step + 1), 0.5);
    // Looking at the averages changes nothing.
    first->use_averages(true);
    first->use_averages(false);
  }
  std::map<std::string, Tensor> saved;
  first->visit_state([&](const std::string& name, Tensor& state) { saved[name] = state.clone(); });
  const auto second = make_optimizer(halves, config());
  second->restore(first->steps(), first->scalars());
  first.reset();
  size_t restored = 0;
  second->visit_state([&](const std::string& name, Tensor& state) {
    state.copy_from(saved.at(name));
    ++restored;
  });
  EXPECT_EQ(restored, saved.size());
  for (int64_t step = 4; step < 8; ++step) {
    set_gradients(halves, step);
    second->step(1.0 / static_cast<double>(step + 1), 0.5);
  }
  EXPECT_EQ(whole.matrix.to_floats(), halves.matrix.to_floats());
  EXPECT_EQ(whole.vector.to_floats(), halves.vector.to_floats());
}

TEST_P(EveryOptimizer, LeavesWhatHasNoGradient) {
  TwoParameters module = fresh();
  const auto optimizer = make_optimizer(module, config());
  set_gradients(module, 0);
  module.vector.clear_grad();
  optimizer->step(1, 1);
  EXPECT_EQ(module.vector.to_floats(), std::vector<float>(30, 0.0f));
}

std::vector<std::string> names() {
  return optimizer_names();
}
INSTANTIATE_TEST_SUITE_P(Kinds, EveryOptimizer, testing::ValuesIn(names()), [](const auto& info) {
  std::string name = info.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

// The first update of a matrix is the momentum with its singular values made equal: a product of orthogonal
// matrices, times 0.2 sqrt(the longer side). The iteration takes singular values into [0.7, 1.2].
// A pruned matrix stays pruned, whatever the method mixes; a matrix of zeros alone is not one.
TEST_P(EveryOptimizer, KeepsZeros) {
  OptimizerConfig keeping = config();
  keeping.keep_zeros = true;
  TwoParameters pruned = fresh(), blank = fresh();
  for (int64_t i = 0; i < pruned.matrix.elements(); ++i)
    pruned.matrix.data<float>()[i] = i % 4 < 2 ? 0.0f : 0.5f;
  const auto optimizer = make_optimizer(pruned, keeping), other = make_optimizer(blank, keeping);
  for (int64_t step = 0; step < 20; ++step) {
    for (TwoParameters* module : {&pruned, &blank}) set_gradients(*module, step);
    double squares = 0;
    for (int64_t i = 0; i < pruned.matrix.elements(); ++i)
      if (i % 4 >= 2) squares += std::pow(double{pruned.matrix.grad().data<float>()[i]}, 2);
    for (const float x : pruned.vector.grad().to_floats()) squares += double{x} * x;
    optimizer->mask_gradients();
    // Sums of 4000 squares in float: 1e-5 of them is a generous bound.
    EXPECT_NEAR(optimizer->gradient_norm(), std::sqrt(squares), 1e-5 * std::sqrt(squares));
    optimizer->step(1, 1);
    other->step(1, 1);
  }
  optimizer->use_averages(true);
  int64_t moved = 0;
  for (int64_t i = 0; i < pruned.matrix.elements(); ++i) {
    const float weight = pruned.matrix.data<float>()[i];
    if (i % 4 < 2) {
      ASSERT_EQ(weight, 0.0f) << i;
    } else {
      moved += weight != 0.5f ? 1 : 0;
    }
  }
  EXPECT_GT(moved, pruned.matrix.elements() / 2 * 9 / 10);
  other->use_averages(true);
  EXPECT_LT(distance(blank), distance(fresh()));
}

TEST(Muon, MakesSingularValuesEqual) {
  TwoParameters module(Tensor::zeros({6, 9}), Tensor::zeros({3}));
  OptimizerConfig config;
  config.kind = "muon";
  config.lr = 1;
  config.weight_decay = 0;
  const auto optimizer = make_optimizer(module, config);
  Tensor g = Tensor::empty({6, 9});
  Rng rng(1, 2);
  for (int64_t i = 0; i < g.elements(); ++i) g.data<float>()[i] = rng.normal() * (i < 9 ? 20.0f : 1.0f);
  module.matrix.set_grad(g);
  optimizer->step(1, 1);
  const float* p = module.matrix.data<float>();
  const double size = 0.2 * std::sqrt(9.0);
  for (int a = 0; a < 6; ++a) {
    double square = 0;
    for (int c = 0; c < 9; ++c) square += double{p[a * 9 + c]} * p[a * 9 + c];
    EXPECT_GT(std::sqrt(square) / size, 0.6) << a;
    EXPECT_LT(std::sqrt(square) / size, 1.25) << a;
  }
}

TEST(AdamW8bit, TakesAQuarterOfTheMemoryAndStaysNearAdamW) {
  TwoParameters low = fresh(), full = fresh();
  OptimizerConfig config;
  config.lr = 0.01;
  const auto plain = make_optimizer(full, config);
  config.kind = "adamw-8bit";
  const auto compact = make_optimizer(low, config);
  for (int64_t step = 0; step < 30; ++step) {
    set_gradients(low, step);
    compact->step(1, 1);
    set_gradients(full, step);
    plain->step(1, 1);
  }
  uint64_t bytes = 0;
  compact->visit_state([&](const std::string& name, Tensor& state) {
    if (name.find("weight") != std::string::npos) bytes += state.bytes();
  });
  EXPECT_LT(static_cast<double>(bytes), 2.05 * 70 * 61);
  EXPECT_NEAR(distance(low), distance(full), 0.05 * distance(full));
}

TEST(Optimizers, AnUnknownNameIsAnError) {
  TwoParameters module = fresh();
  OptimizerConfig config;
  config.kind = "adamv";
  EXPECT_NE(test::error_of([&] { make_optimizer(module, config); }).find("did you mean 'adamw'?"),
            std::string::npos);
}

}  // namespace
}  // namespace qkv
