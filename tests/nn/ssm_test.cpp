// State-space mixers: passes over whole sequences against passes that go on from states, several sequences at
// once.
#include "qkv/nn/ssm.h"

#include <gmock/gmock.h>

#include <cmath>
#include <functional>
#include <map>

#include "qkv/core/error.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

constexpr int64_t kChannels = 12;

void randomize(Module& module) {
  uint64_t stream = 0;
  module.visit("blocks.0.ssm.", [&](const std::string& name, Tensor& parameter) {
    Rng rng(3, stream++);
    if (parameter.is_placeholder()) parameter = Tensor::zeros(parameter.shape());
    if (initialize_ssm_parameter(name, parameter, rng)) return;
    float* values = parameter.data<float>();
    for (int64_t i = 0; i < parameter.elements(); ++i) values[i] += 0.3f * rng.normal();
  });
}

std::unique_ptr<Mixer> mamba(bool normalized) {
  MambaConfig config;
  config.channels = kChannels;
  config.inner = 20;
  config.states = 5;
  config.dt_rank = 3;
  config.normalized = normalized;
  config.bias = normalized;
  auto mixer = std::make_unique<Mamba>(config);
  randomize(*mixer);
  return mixer;
}

std::unique_ptr<Mixer> mamba2(int64_t groups) {
  Mamba2Config config;
  config.channels = kChannels;
  config.heads = 4;
  config.head_dim = 6;
  config.states = 7;
  config.groups = groups;
  config.norm = groups > 1;
  auto mixer = std::make_unique<Mamba2>(config);
  randomize(*mixer);
  return mixer;
}

struct Kind {
  const char* name;
  std::function<std::unique_ptr<Mixer>()> make;
  uint64_t state_bytes;
};

void PrintTo(const Kind& kind, std::ostream* out) {
  *out << kind.name;
}

const Kind kKinds[] = {
    {"mamba", [] { return mamba(false); }, 4 * (3 * 20 + 5 * 20)},
    {"falcon_mamba", [] { return mamba(true); }, 4 * (3 * 20 + 5 * 20)},
    {"mamba2", [] { return mamba2(1); }, 4 * (3 * (24 + 2 * 7) + 4 * 7 * 6)},
    {"mamba2_groups", [] { return mamba2(2); }, 4 * (3 * (24 + 4 * 7) + 4 * 7 * 6)},
};

class SsmMixers : public testing::TestWithParam<Kind> {
 protected:
  void SetUp() override {
    mixer_ = GetParam().make();
    Rng rng(11);
    input_ = Tensor::empty({kTokens, kChannels});
    for (int64_t i = 0; i < input_.elements(); ++i) input_.data<float>()[i] = rng.normal();
  }
  static constexpr int64_t kTokens = 240;
  std::unique_ptr<Mixer> mixer_;
  Tensor input_;  // (T, C)
};

double largest_difference(const Tensor& a, const Tensor& b) {
  const std::vector<float> x = a.to_floats(), y = b.to_floats();
  EXPECT_EQ(x.size(), y.size());
  double largest = 0;
  for (size_t i = 0; i < x.size(); ++i) largest = std::max(largest, std::abs(double{x[i]} - y[i]));
  return largest;
}

TEST_P(SsmMixers, SequencesOfAWholePassDoNotSeeEachOther) {
  const NoGrad off;
  const Tensor both = mixer_->forward(input_, Pass::whole({140, 100}), nullptr, 0);
  const Tensor first = mixer_->forward(input_.row_view(0, 140), Pass::whole({140}), nullptr, 0);
  const Tensor second = mixer_->forward(input_.row_view(140, kTokens), Pass::whole({100}), nullptr, 0);
  EXPECT_LT(largest_difference(both.row_view(0, 140), first), 1e-6);
  EXPECT_LT(largest_difference(both.row_view(140, kTokens), second), 1e-6);
}

TEST_P(SsmMixers, GoingOnFromStatesIsTheWholePass) {
  const NoGrad off;
  const Tensor whole = mixer_->forward(input_, Pass::whole({kTokens}), nullptr, 0);
  // Two sequences over the same tokens, at different places.
  SequenceState states[2];
  for (SequenceState& state : states) state.layers.push_back(mixer_->make_state({}));
  int64_t at[2] = {0, 0};
  for (const auto& [n, m] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 150}, {1, 1}, {2, 0}, {130, 1}, {1, 60}, {105, 28}}) {
    Pass pass;
    pass.sequences.offsets = {0, n, n + m};
    pass.positions.resize(static_cast<size_t>(n + m));
    pass.states = {&states[0], &states[1]};
    const Tensor x = ops::concat_rows({input_.row_view(at[0], at[0] + n), input_.row_view(at[1], at[1] + m)});
    const Tensor y = mixer_->forward(x, pass, nullptr, 0);
    EXPECT_LT(largest_difference(y.row_view(0, n), whole.row_view(at[0], at[0] + n)), 1e-5);
    EXPECT_LT(largest_difference(y.row_view(n, n + m), whole.row_view(at[1], at[1] + m)), 1e-5);
    at[0] += n;
    at[1] += m;
  }
  EXPECT_EQ(at[0], kTokens);
  EXPECT_EQ(at[1], kTokens);
}

TEST_P(SsmMixers, AStateIsAsLargeAsItSaysAndKnowsNoWayBack) {
  const NoGrad off;
  SequenceState state;
  state.layers.push_back(mixer_->make_state({}));
  EXPECT_EQ(state.bytes(), GetParam().state_bytes);
  const Tensor first = mixer_->forward(input_.row_view(0, 9), Pass::next(state, 9), nullptr, 0);
  state.length = 9;
  EXPECT_EQ(state.bytes(), GetParam().state_bytes);
  state.truncate(9);
  EXPECT_THAT(test::error_of([&] { state.truncate(8); }),
              testing::HasSubstr("cannot go back from 9 tokens to 8"));
  state.truncate(0);
  const Tensor again = mixer_->forward(input_.row_view(0, 9), Pass::next(state, 9), nullptr, 0);
  EXPECT_EQ(largest_difference(first, again), 0);
}

TEST_P(SsmMixers, InitialStepsAreBetweenOneThousandthAndOneTenth) {
  mixer_->visit("ssm.", [&](const std::string& name, Tensor& parameter) {
    if (name != "ssm.dt.bias") return;
    for (const float bias : parameter.to_floats()) {
      const double step = std::log1p(std::exp(double{bias}));
      EXPECT_GE(step, 0.000999);
      EXPECT_LE(step, 0.1001);
    }
  });
}

std::map<std::string, Tensor*> parameters_of(Module& module) {
  std::map<std::string, Tensor*> parameters;
  module.visit("", [&](const std::string& name, Tensor& parameter) { parameters[name] = &parameter; });
  return parameters;
}

Tensor random_input(int64_t tokens) {
  Rng rng(11);
  Tensor x = Tensor::empty({tokens, kChannels});
  for (int64_t i = 0; i < x.elements(); ++i) x.data<float>()[i] = rng.normal();
  return x;
}

// What is normalized does not know how long it was.
TEST(FalconMamba, TheScaleOfItsParametersDoesNotMatter) {
  const NoGrad off;
  const Tensor x = random_input(30);
  for (const bool normalized : {true, false}) {
    const auto mixer = mamba(normalized);
    const Tensor before = mixer->forward(x, Pass::whole({30}), nullptr, 0);
    Tensor& weight = *parameters_of(*mixer).at("parameters.weight");
    for (int64_t i = 0; i < weight.elements(); ++i) weight.data<float>()[i] *= 16;
    const double difference = largest_difference(before, mixer->forward(x, Pass::whole({30}), nullptr, 0));
    if (normalized) {
      EXPECT_LT(difference, 1e-4);  // eps beside a mean square of about 0.1
    } else {
      EXPECT_GT(difference, 1e-2);
    }
  }
}

// Two groups are two mixers of one group each, whose outputs are added: states, norms and heads are their
// own.
TEST(Mamba2, GroupsAreMixersOfTheirOwn) {
  const NoGrad off;
  const Tensor x = random_input(130);
  const auto both = mamba2(2);
  const auto from = parameters_of(*both);
  Tensor sum = Tensor::zeros({130, kChannels});
  for (const int64_t group : {0, 1}) {
    Mamba2Config config;
    config.channels = kChannels;
    config.heads = 2;
    config.head_dim = 6;
    config.states = 7;
    const auto one = std::make_unique<Mamba2>(config);
    randomize(*one);
    for (auto& [name, parameter] : parameters_of(*one)) {
      const Tensor& source = *from.at(name);
      const auto take = [&](int64_t first, int64_t at, int64_t n) {  // rows
        parameter->row_view(at, at + n).copy_from(source.row_view(first, first + n));
      };
      if (name == "out.weight") {
        parameter->copy_from(ops::slice_cols(source, 12 * group, 12 * (group + 1)));
      } else if (parameter->dim(0) == 12 + 2 * 7) {  // x, b and c one after the other
        take(12 * group, 0, 12);
        take(24 + 7 * group, 12, 7);
        take(24 + 14 + 7 * group, 19, 7);
      } else {
        take(parameter->dim(0) * group, 0, parameter->dim(0));
      }
    }
    sum = ops::add(sum, one->forward(x, Pass::whole({130}), nullptr, 0));
  }
  EXPECT_LT(largest_difference(both->forward(x, Pass::whole({130}), nullptr, 0), sum), 1e-5);
}

INSTANTIATE_TEST_SUITE_P(All, SsmMixers, testing::ValuesIn(kKinds),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace qkv
