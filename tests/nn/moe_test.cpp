// Mixtures of experts: routers against their definitions, grouping by expert against running every token
// alone, and the load-balancing loss.
#include <gtest/gtest.h>

#include <cmath>

#include "qkv/nn/moe.h"
#include "tests/tensor/tensor_testing.h"

namespace qkv::test {
namespace {

Tensor logits_of(const std::vector<Doubles>& rows) {
  Doubles all;
  for (const auto& row : rows) all.insert(all.end(), row.begin(), row.end());
  return tensor_of(all, {static_cast<int64_t>(rows.size()), static_cast<int64_t>(rows[0].size())});
}

double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}

TEST(Router, SoftmaxOverAllThenTheBest) {
  const Doubles z = {0.3, 2.0, -1.0, 1.0};
  double sum = 0;
  for (double v : z) sum += std::exp(v);
  RouterConfig config;
  config.experts = 4;
  config.top_k = 2;
  const Routing plain = route(config, logits_of({z}), {});
  EXPECT_EQ(plain.experts, (std::vector<int32_t>{1, 3}));
  EXPECT_TRUE(close(plain.weights, {std::exp(2.0) / sum, std::exp(1.0) / sum}, 1e-6));
  config.normalize = true;
  config.scale = 2.5;
  EXPECT_TRUE(close(route(config, logits_of({z}), {}).weights, {2.5 * sigmoid(1), 2.5 * sigmoid(-1)}, 1e-6));
}

TEST(Router, EqualScoresGoToTheFirst) {
  RouterConfig config;
  config.experts = 3;
  config.top_k = 2;
  EXPECT_EQ(route(config, logits_of({{1, 1, 1}}), {}).experts, (std::vector<int32_t>{0, 1}));
}

TEST(Router, OnlyTheBestGroupsCount) {
  RouterConfig config;
  config.experts = 6;
  config.top_k = 2;
  config.groups = 3;
  config.top_groups = 1;
  // The second group has the best expert, the third the best two together.
  const Tensor logits = logits_of({{0, 0.1, 3, -2, 2.5, 2.4}});
  EXPECT_EQ(route(config, logits, {}).experts, (std::vector<int32_t>{2, 3}));
  config.score = RouterConfig::Score::sigmoid;
  config.groups_by_top_two = true;
  EXPECT_EQ(route(config, logits, {}).experts, (std::vector<int32_t>{4, 5}));
}

TEST(Router, ACorrectionSteersTheChoiceButNotTheWeights) {
  RouterConfig config;
  config.experts = 4;
  config.top_k = 2;
  config.score = RouterConfig::Score::sigmoid;
  config.correction = true;
  const Tensor logits = logits_of({{1.0, 0.5, -0.5, -1.0}});
  const Routing routing = route(config, logits, tensor_of({0, -1, 0, 1}, {4}));
  EXPECT_EQ(routing.experts, (std::vector<int32_t>{3, 0}));
  EXPECT_TRUE(close(routing.weights, {sigmoid(-1), sigmoid(1)}, 1e-6));
}

TEST(Router, SparseMixerWeighsAmongTheClose) {
  RouterConfig config;
  config.experts = 4;
  config.top_k = 2;
  config.score = RouterConfig::Score::sparse_mixer;
  config.jitter = 0.01f;
  // 2.0 and 1.97 are within 2 % of each other; without them 1.0 stands alone.
  const Routing routing = route(config, logits_of({{1.0, 2.0, 0.5, 1.97}}), {});
  EXPECT_EQ(routing.experts, (std::vector<int32_t>{1, 3}));
  EXPECT_TRUE(close(routing.weights, {sigmoid(0.03), 1.0}, 1e-6));
}

MoeConfig small_mixture() {
  MoeConfig config;
  config.router.experts = 5;
  config.router.top_k = 2;
  config.router.normalize = true;
  config.expert.channels = 8;
  config.expert.hidden = 6;
  config.shared_hidden = 7;
  config.shared_gate = true;
  return config;
}

// Random parameters, ready for gradients.
void fill(Module& module) {
  uint64_t seed = 1;
  module.visit("", [&](const std::string&, Tensor& parameter) {
    parameter = random_leaf(parameter.shape(), seed++, DType::f32, 0.5);
  });
}

TEST(MixtureOfExperts, TokensTogetherGiveWhatEachGivesAlone) {
  MixtureOfExperts mixture(small_mixture());
  fill(mixture);
  const Tensor x = random_tensor({9, 8}, 50);
  const NoGrad off;
  const Tensor together = mixture.forward(x, Pass());
  for (int64_t t = 0; t < x.rows(); ++t) {
    EXPECT_TRUE(
        close(mixture.forward(x.row_view(t, t + 1), Pass()), values_of(together.row_view(t, t + 1)), 1e-6))
        << t;
  }
}

TEST(MixtureOfExperts, GradientsAreThoseOfFiniteDifferences) {
  MixtureOfExperts mixture(small_mixture());
  fill(mixture);
  const Tensor x = random_leaf({9, 8}, 50), upstream = random_tensor({9, 8}, 51);
  backward(mixture.forward(x, Pass()), upstream);
  const auto loss = [&] {
    const NoGrad off;
    return reference::inner(values_of(mixture.forward(x, Pass())), values_of(upstream));
  };
  // In float differences are good to a few parts in a thousand, if the step changes no choice of experts.
  mixture.visit("", [&](const std::string& name, Tensor& parameter) {
    ASSERT_TRUE(parameter.grad().defined()) << name;
    float& value = parameter.data<float>()[parameter.elements() / 2];
    const float was = value, step = 1e-2f;
    value = was + step;
    const double above = loss();
    value = was - step;
    const double below = loss();
    value = was;
    const double expected = (above - below) / (2 * double{step});
    EXPECT_NEAR(parameter.grad().data<float>()[parameter.elements() / 2], expected,
                5e-3 * (1 + std::abs(expected)))
        << name;
  });
}

TEST(MixtureOfExperts, LogitsAreCollectedWhereAsked) {
  MixtureOfExperts mixture(small_mixture());
  fill(mixture);
  std::vector<Tensor> logits;
  Pass pass;
  pass.router_logits = &logits;
  mixture.forward(random_tensor({3, 8}, 50), pass);
  ASSERT_EQ(logits.size(), 1u);
  EXPECT_EQ(logits[0].shape(), (Shape{3, 5}));
}

TEST(LoadBalancing, EvenRoutingGivesTopK) {
  // Two layers of four tokens, each expert chosen equally often and equally likely on average.
  const Tensor a = logits_of({{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}});
  EXPECT_NEAR(load_balancing_loss({a, a}, 1).item(), 1.0, 1e-6);
  const Tensor one_sided = logits_of({{9, 0, 0, 0}, {9, 0, 0, 0}});
  EXPECT_GT(load_balancing_loss({one_sided}, 1).item(), 3.9);
}

TEST(LoadBalancing, IsTheSharesTimesTheProbabilities) {
  const int64_t rows = 6, experts = 4;
  const Doubles values = normal_values(rows * experts, 3);
  const Tensor logits = tensor_of(values, {rows, experts});
  const Doubles p = reference::softmax(values, rows, experts);
  Doubles share(4, 0.0), mean(4, 0.0);
  for (int64_t r = 0; r < rows; ++r) {
    std::vector<int> order = {0, 1, 2, 3};
    std::sort(order.begin(), order.end(), [&](int a, int b) {
      return p[static_cast<size_t>(r * 4 + a)] > p[static_cast<size_t>(r * 4 + b)];
    });
    for (int k = 0; k < 2; ++k) share[static_cast<size_t>(order[static_cast<size_t>(k)])] += 1.0 / 6;
    for (int e = 0; e < 4; ++e) mean[static_cast<size_t>(e)] += p[static_cast<size_t>(r * 4 + e)] / 6;
  }
  EXPECT_NEAR(load_balancing_loss({logits}, 2).item(), 4 * reference::inner(share, mean), 1e-6);
}

}  // namespace
}  // namespace qkv::test
