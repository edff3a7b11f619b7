// The sampler chain against the logits processors of Hugging Face transformers, and its draws against their
// distribution.
#include "qkv/engine/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/support/golden_safetensors.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

struct Case {
  const char* name;
  SamplerOptions options;
};

std::vector<Case> cases() {
  std::vector<Case> result(7);
  result[0].name = "temperature_0_7";
  result[0].options.temperature = 0.7f;
  result[1].name = "top_k_5";
  result[1].options.top_k = 5;
  result[2].name = "top_p_0_8";
  result[2].options.top_p = 0.8f;
  result[3].name = "top_p_0_3_min2";
  result[3].options.top_p = 0.3f;
  result[3].options.min_keep = 2;
  result[4].name = "min_p_0_1";
  result[4].options.min_p = 0.1f;
  result[5].name = "repetition_1_3";
  result[5].options.repetition_penalty = 1.3f;
  result[6].name = "chain_rep1.3_temp0.7_topk20_topp0.8";
  result[6].options = {.temperature = 0.7f, .top_k = 20, .top_p = 0.8f, .repetition_penalty = 1.3f};
  return result;
}

class SamplerReference : public testing::TestWithParam<Case> {};

TEST_P(SamplerReference, FiltersLikeTheReference) {
  const test::GoldenSafetensors golden(test::golden("sampling/sampling.safetensors"));
  const auto logits = golden.values("logits"), ids = golden.values("input_ids"),
             expected = golden.values(GetParam().name);
  const auto rows = static_cast<size_t>(golden.shape("logits")[0]),
             vocabulary = static_cast<size_t>(golden.shape("logits")[1]);
  const size_t length = ids.size() / rows;
  Sampler sampler(GetParam().options);
  for (size_t row = 0; row < rows; ++row) {
    std::vector<float> values(logits.begin() + static_cast<std::ptrdiff_t>(row * vocabulary),
                              logits.begin() + static_cast<std::ptrdiff_t>((row + 1) * vocabulary));
    const std::vector<int32_t> history(ids.begin() + static_cast<std::ptrdiff_t>(row * length),
                                       ids.begin() + static_cast<std::ptrdiff_t>((row + 1) * length));
    sampler.filter(values, history);
    for (size_t id = 0; id < vocabulary; ++id) {
      const double wanted = expected[row * vocabulary + id];
      if (std::isinf(wanted)) {
        EXPECT_EQ(values[id], wanted) << "row " << row << ", id " << id;
      } else {
        EXPECT_NEAR(values[id], wanted, 1e-6 * std::max(1.0, std::abs(wanted)))
            << "row " << row << ", id " << id;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Processors, SamplerReference, testing::ValuesIn(cases()), [](const auto& info) {
  std::string name = info.param.name;
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return name;
});

TEST(Sampler, DrawsFollowTheDistributionOfTheChain) {
  const test::GoldenSafetensors golden(test::golden("sampling/sampling.safetensors"));
  const auto logits = golden.values("logits"), ids = golden.values("input_ids"),
             probabilities = golden.values("chain_probs");
  const auto vocabulary = static_cast<size_t>(golden.shape("logits")[1]);
  const std::vector<int32_t> history(ids.begin(),
                                     ids.begin() + static_cast<std::ptrdiff_t>(golden.shape("input_ids")[1]));
  Sampler sampler({.temperature = 0.7f, .top_k = 20, .top_p = 0.8f, .repetition_penalty = 1.3f, .seed = 3});
  constexpr int draws = 20000;
  std::vector<double> counts(vocabulary);
  for (uint64_t step = 0; step < draws; ++step) {
    std::vector<float> values(logits.begin(), logits.begin() + static_cast<std::ptrdiff_t>(vocabulary));
    counts[static_cast<size_t>(*sampler.sample(values, history, step))] += 1;
  }
  for (size_t id = 0; id < vocabulary; ++id) {
    const double p = probabilities[id];
    EXPECT_NEAR(counts[id] / draws, p, 4.5 * std::sqrt(p * (1 - p) / draws) + 1e-9) << "id " << id;
  }
}

TEST(Sampler, ADrawDependsOnSeedAndStepAlone) {
  const std::vector<float> flat(100, 0.0f);
  const auto draw = [&](Sampler& sampler, uint64_t step) {
    std::vector<float> logits = flat;
    return *sampler.sample(logits, {}, step);
  };
  Sampler first({.seed = 11}), second({.seed = 11}), other({.seed = 12});
  std::vector<int32_t> forward, backward, others;
  for (uint64_t step = 0; step < 50; ++step) {
    forward.push_back(draw(first, step));
    others.push_back(draw(other, step));
  }
  for (uint64_t step = 50; step-- > 0;) backward.insert(backward.begin(), draw(second, step));
  EXPECT_EQ(forward, backward);
  EXPECT_NE(forward, others);
}

TEST(Sampler, TemperatureZeroTakesTheLowestOfTheLikeliest) {
  Sampler sampler({.temperature = 0, .top_k = 1});
  std::vector<float> logits = {0, 3, 1, 3};
  EXPECT_EQ(sampler.sample(logits, {}, 0), 1);
}

TEST(Sampler, TheWindowLimitsThePenalty) {
  Sampler sampler({.temperature = 0, .repetition_penalty = 2, .repetition_window = 1});
  std::vector<float> logits = {4, 3, -1};
  const std::vector<int32_t> history = {0, 2};
  sampler.filter(logits, history);
  EXPECT_EQ(logits, (std::vector<float>{4, 3, -2}));
}

TEST(Sampler, NumbersThatAreNoneGiveNoToken) {
  Sampler sampler({});
  std::vector<float> logits = {0, std::numeric_limits<float>::quiet_NaN()};
  EXPECT_FALSE(sampler.sample(logits, {}, 0));
  logits.assign(3, -std::numeric_limits<float>::infinity());
  EXPECT_FALSE(sampler.sample(logits, {}, 0));
  logits = {0, std::numeric_limits<float>::infinity()};
  EXPECT_FALSE(sampler.sample(logits, {}, 0));
}

TEST(Sampler, LogProbability) {
  const std::vector<float> logits = {0, std::log(3.0f), 0};
  EXPECT_NEAR(log_probability(logits, 1), std::log(0.6), 1e-6);
}

TEST(Sampler, ImpossibleOptionsAreErrors) {
  EXPECT_EQ(test::error_of([] { Sampler({.temperature = -1}); }),
            "temperature: expected a number from 0 to 100, found -1");
  EXPECT_EQ(test::error_of([] { Sampler({.temperature = std::nanf("")}); }),
            "temperature: expected a number from 0 to 100, found nan");
  EXPECT_EQ(test::error_of([] { Sampler({.top_k = -2}); }),
            "top-k: expected 0 (all tokens) or more, found -2");
  EXPECT_EQ(test::error_of([] { Sampler({.top_p = 0}); }),
            "top-p: expected a number above 0, at most 1, found 0");
  EXPECT_EQ(test::error_of([] { Sampler({.min_p = 1.5}); }),
            "min-p: expected a number from 0 to 1, found 1.5");
  EXPECT_EQ(test::error_of([] { Sampler({.repetition_penalty = 0}); }),
            "repetition penalty: expected a number above 0, at most 100 (1 is none), found 0");
}

}  // namespace
}  // namespace qkv
