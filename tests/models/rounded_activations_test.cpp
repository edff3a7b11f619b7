// Trained models whose weights are quantized: what rounding the activations of their products to bytes does
// to the distribution of the next token, against the exact forward of the same weights.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

#include "qkv/models/bundle.h"
#include "qkv/tensor/autograd.h"
#include "tests/support/test_paths.h"

namespace qkv::test {
namespace {

struct Distance {
  double kl = 0;
  bool same_top = true;
  double margin = 0;  // between the reference's two highest logits
};

Distance distance(const float* found, const float* expected, int64_t n) {
  const auto log_sum = [n](const float* z) {
    const double most = *std::max_element(z, z + n);
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += std::exp(static_cast<double>(z[i]) - most);
    return most + std::log(sum);
  };
  const double p_sum = log_sum(expected), q_sum = log_sum(found);
  Distance result;
  float first = -INFINITY, second = -INFINITY;
  for (int64_t i = 0; i < n; ++i) {
    const double log_p = expected[i] - p_sum;
    result.kl += std::exp(log_p) * (log_p - (found[i] - q_sum));
    if (expected[i] > first) {
      second = first;
      first = expected[i];
    } else {
      second = std::max(second, expected[i]);
    }
  }
  result.same_top =
      std::max_element(found, found + n) - found == std::max_element(expected, expected + n) - expected;
  result.margin = static_cast<double>(first) - static_cast<double>(second);
  return result;
}

class RoundedActivations : public ::testing::TestWithParam<const char*> {};

TEST_P(RoundedActivations, KeepTheDistribution) {
  const std::string path = shared(std::string("data/models/stories3M-") + GetParam() + ".gguf");
  if (!std::filesystem::exists(path)) GTEST_SKIP() << path << " is absent";
  const NoGrad off;
  const Bundle bundle = load_bundle(path);
  const Model& model = *bundle.model;
  const std::vector<int32_t> tokens = bundle.tokenizer->encode(
      "Once upon a time, there was a little girl named Lily. She loved to play outside in the park with her "
      "friends. One day, "
      "she saw a big dog. The dog was very sad because it had lost its ball. Lily wanted to help the dog, so "
      "she looked for "
      "the ball under the trees and behind the bench. Then she found it in the sand and gave it back. The "
      "dog was happy.");
  const auto n = static_cast<int64_t>(tokens.size());
  ASSERT_GT(n, 40);
  Pass exact = Pass::whole({n}), rounding = exact;
  rounding.activations = Activations::int8;
  const Tensor expected = model.logits(model.forward(tokens, exact));
  const Tensor found = model.logits(model.forward(tokens, rounding), Activations::int8);

  SequenceState state = model.make_state();
  double sum = 0, decoding_sum = 0;
  for (int64_t t = 0; t < n; ++t) {
    Pass step = Pass::next(state, 1);
    step.activations = Activations::int8;
    const Tensor decoded =
        model.logits(model.forward({tokens[static_cast<size_t>(t)]}, step), Activations::int8);
    const int64_t vocabulary = expected.cols();
    const float* want = expected.data<float>() + t * vocabulary;
    const Distance whole = distance(found.data<float>() + t * vocabulary, want, vocabulary);
    const Distance decoding = distance(decoded.data<float>(), want, vocabulary);
    sum += whole.kl;
    decoding_sum += decoding.kl;
    if (whole.margin > 0.5) {
      EXPECT_TRUE(whole.same_top) << "token " << t << ", margin " << whole.margin;
      EXPECT_TRUE(decoding.same_top) << "token " << t << ", margin " << whole.margin;
    }
  }
  RecordProperty("kl", std::to_string(sum / static_cast<double>(n)));
  EXPECT_LT(sum / static_cast<double>(n), 1e-2);
  EXPECT_LT(decoding_sum / static_cast<double>(n), 1e-2);
  // Rounding took place: otherwise nothing above was tested.
  EXPECT_GT(sum, 0);
}

INSTANTIATE_TEST_SUITE_P(Files, RoundedActivations,
                         ::testing::Values("Q4_0", "Q4_K_M", "Q5_1", "Q6_K", "Q8_0", "IQ4_NL"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace qkv::test
