// The sampler chain against the logits processors of Hugging Face transformers, and its draws against their
// distribution.
#include "qkv/engine/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "qkv/core/rng.h"
#include "tests/support/golden_safetensors.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

struct Case {
  const char* name;
  SamplerOptions options;
};

std::vector<Case> cases() {
  std::vector<Case> result(12);
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
  result[7].name = "typical_0_6";
  result[7].options.typical_p = 0.6f;
  result[8].name = "epsilon_0_01";
  result[8].options.epsilon = 0.01f;
  result[9].name = "eta_0_02";
  result[9].options.eta = 0.02f;
  result[10].name = "no_repeat_ngram_3";
  result[10].options.no_repeat_ngram = 3;
  result[11].name = "bad_words";
  result[11].options.bad_words = {{7}, {2, 9}};
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

// Logits whose probabilities are these.
std::vector<float> logits_of(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

std::vector<int32_t> kept(const SamplerOptions& options, std::vector<float> logits,
                          std::vector<int32_t> history = {}, uint64_t step = 0) {
  Sampler(options).filter(logits, history, step);
  std::vector<int32_t> ids;
  for (size_t id = 0; id < logits.size(); ++id) {
    if (std::isfinite(logits[id])) ids.push_back(static_cast<int32_t>(id));
  }
  return ids;
}

using Ids = std::vector<int32_t>;

TEST(Sampler, TopNSigmaKeepsWhatStandsOut) {
  // Mean 1, variance ((9 - 1)^2 + 8 * 1) / 9 = 8: three standard deviations below 9 is 0.51.
  const std::vector<float> logits = {9, 0, 0, 0, 0, 0, 0, 0, 0};
  EXPECT_EQ(kept({.top_n_sigma = 3}, logits), (Ids{0}));
  EXPECT_EQ(kept({.top_n_sigma = 3.5f}, logits).size(), 9u);
  EXPECT_EQ(kept({.temperature = 5, .top_n_sigma = 3}, logits), (Ids{0}));  // whatever the temperature
}

TEST(Sampler, XtcExcludesAllButTheLeastOfTheTopChoices) {
  const std::vector<float> logits = logits_of({0.3, 0.15, 0.4, 0.1, 0.05});
  EXPECT_EQ(kept({.xtc_probability = 1, .xtc_threshold = 0.12f}, logits), (Ids{1, 3, 4}));
  EXPECT_EQ(kept({.xtc_probability = 1, .xtc_threshold = 0.35f}, logits).size(),
            5u);  // a single top choice stays
  int excluded = 0;
  for (uint64_t step = 0; step < 2000; ++step) {
    excluded += kept({.xtc_probability = 0.25f, .xtc_threshold = 0.12f}, logits, {}, step).size() == 3;
  }
  EXPECT_NEAR(excluded / 2000.0, 0.25, 4.5 * std::sqrt(0.25 * 0.75 / 2000));
}

TEST(Sampler, PresenceAndFrequency) {
  Sampler sampler({.presence_penalty = 0.5f, .frequency_penalty = 0.25f});
  std::vector<float> logits = {1, 1, 1};
  sampler.filter(logits, Ids{1, 1, 2});
  EXPECT_EQ(logits, (std::vector<float>{1, 0, 0.25f}));
}

TEST(Sampler, DryPenalizesWhatWouldGoOnWithARepetition) {
  // The end, 1 2 3, was seen before 4; the end, 2 3, before 5 too.
  const Ids history = {1, 2, 3, 4, 9, 2, 3, 5, 1, 2, 3};
  SamplerOptions options;
  options.dry_multiplier = 0.5f;
  options.dry_base = 2;
  std::vector<float> logits(10, 0.0f);
  Sampler(options).filter(logits, history);
  for (size_t id = 0; id < logits.size(); ++id) {
    EXPECT_EQ(logits[id], id == 4 ? -1.0f : id == 5 ? -0.5f : 0.0f) << id;
  }
  options.dry_breakers = {2};  // leaves a repetition of length 1
  logits.assign(10, 0.0f);
  Sampler(options).filter(logits, history);
  EXPECT_EQ(logits, std::vector<float>(10, 0.0f));
  options.dry_breakers = {};
  options.dry_window = 6;  // 2 3 5 1 2 3
  Sampler(options).filter(logits, history);
  EXPECT_EQ(logits[4], 0);
  EXPECT_EQ(logits[5], -0.5f);
}

TEST(Sampler, DryEqualsAPlainSearch) {
  Rng rng(5);
  for (int round = 0; round < 200; ++round) {
    Ids history;
    for (uint64_t i = 0, n = rng.below(40); i < n; ++i) history.push_back(static_cast<int32_t>(rng.below(3)));
    std::vector<double> expected(3, 0);
    for (size_t end = 1; end < history.size();
         ++end) {  // the token at `end` followed a repetition of this length
      size_t length = 0;
      while (length < end && history[end - 1 - length] == history[history.size() - 1 - length]) ++length;
      auto& penalty = expected[static_cast<size_t>(history[end])];
      if (length >= 2) penalty = std::max(penalty, 0.8 * std::pow(1.75, static_cast<double>(length - 2)));
    }
    std::vector<float> logits(3, 0.0f);
    Sampler({.dry_multiplier = 0.8f}).filter(logits, history);
    for (size_t id = 0; id < 3; ++id) EXPECT_NEAR(-logits[id], expected[id], 1e-6 * (1 + expected[id]));
  }
}

TEST(Sampler, BiasForbidsAndFavours) {
  EXPECT_EQ(kept({.logit_bias = {{1, -std::numeric_limits<float>::infinity()}}}, {0, 5, 1}), (Ids{0, 2}));
  Sampler sampler({.temperature = 0, .logit_bias = {{0, 7}, {99, 1}}});
  std::vector<float> logits = {0, 5, 1};
  EXPECT_EQ(sampler.sample(logits, {}, 0), 0);
}

TEST(Sampler, DynamicTemperatureFollowsTheEntropy) {
  std::vector<float> flat = {1, 1, 1, 1}, sharp = {100, 0, 0, 0};
  Sampler sampler({.temperature = 1, .temperature_range = 0.5f});
  sampler.filter(flat, {});
  EXPECT_NEAR(flat[0], 1 / 1.5, 1e-6);  // full entropy: the highest temperature
  sampler.filter(sharp, {});
  EXPECT_NEAR(sharp[0], 100 / 0.5, 1e-3);  // none: the lowest
}

TEST(Sampler, MirostatHoldsTheSurprise) {
  // Zipf's law over 5000 tokens has an entropy of about 9 bits.
  std::vector<float> zipf;
  for (int i = 0; i < 5000; ++i) zipf.push_back(-1.1f * std::log(static_cast<float>(i + 1)));
  for (const int version : {1, 2}) {
    for (const float tau : {3.0f, 5.0f}) {
      Sampler sampler({.mirostat = version, .mirostat_tau = tau});
      // What is drawn from what is left has this surprise, as the sampler sees it.
      double sum = 0;
      for (uint64_t step = 0; step < 600; ++step) {
        std::vector<float> logits = zipf;
        const int32_t token = *sampler.sample(logits, {}, step);
        std::vector<float> all = zipf;
        if (step >= 100) sum += -log_probability(all, token) / std::log(2.0f);
      }
      // Surprise by the whole distribution is that by the kept part and what the kept part's mass adds, under
      // 2 bits.
      EXPECT_GT(sum / 500, tau - 0.5) << "mirostat " << version;
      EXPECT_LT(sum / 500, tau + 2) << "mirostat " << version;
    }
  }
}

TEST(Sampler, TheOrderIsAnOption) {
  // With temperature first, 3 flattens the distribution and min-p keeps more.
  const std::vector<float> logits = logits_of({0.6, 0.3, 0.1});
  SamplerOptions options{.temperature = 3, .min_p = 0.3f};
  EXPECT_EQ(kept(options, logits).size(), 3u);
  options.order = llama_cpp_order();
  EXPECT_EQ(kept(options, logits).size(), 2u);
  options.order = parse_sampler_order("temperature");
  EXPECT_EQ(kept({.temperature = 1, .top_k = 1, .order = options.order}, logits).size(), 3u);
  EXPECT_EQ(parse_sampler_order("top_k;typical_p,xtc"),
            (std::vector<SamplerStage>{SamplerStage::top_k, SamplerStage::typical_p, SamplerStage::xtc}));
  EXPECT_EQ(test::error_of([] { parse_sampler_order("top_k;topk"); }),
            "samplers: expected names among penalties, dry, temperature, top_k, top_p, min_p, typical_p, "
            "epsilon, eta, "
            "top_n_sigma, xtc, found 'topk'");
  EXPECT_EQ(test::error_of([] { parse_sampler_order("top_k;top_k"); }),
            "samplers: expected every name once, found 'top_k' again");
}

TEST(Sampler, TopLogprobs) {
  const auto top = top_logprobs(logits_of({0.1, 0.6, 0.1, 0.2}), 3);
  ASSERT_EQ(top.size(), 3u);
  EXPECT_EQ(top[0].token, 1);
  EXPECT_NEAR(top[0].logprob, std::log(0.6), 1e-6);
  EXPECT_EQ(top[1].token, 3);
  EXPECT_EQ(top[2].token, 0);  // the lower id of equals
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
