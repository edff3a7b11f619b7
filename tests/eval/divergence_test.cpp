#include "qkv/eval/divergence.h"

#include <gtest/gtest.h>

#include <numeric>

#include "tests/eval/eval_support.h"
#include "tests/support/test_paths.h"

namespace qkv::test {
namespace {

const std::string kText =
    "It was a bright cold day in April, and the clocks were striking thirteen. Winston Smith, his chin "
    "nuzzled into his breast in an effort to escape the vile wind, slipped quickly through the glass doors.";

// Probabilities of one row, in double.
std::vector<double> softmax(const float* row, int64_t n) {
  std::vector<double> p(static_cast<size_t>(n));
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += p[static_cast<size_t>(i)] = std::exp(static_cast<double>(row[i]));
  for (double& value : p) value /= sum;
  return p;
}

TEST(CompareRows, IsTheDefinition) {
  const std::vector<float> model = {1, 2, 0.5f, -1}, reference = {0.8f, 2.5f, 0.5f, -3};
  const std::vector<double> q = softmax(model.data(), 4), p = softmax(reference.data(), 4);
  double kl = 0;
  for (size_t i = 0; i < 4; ++i) kl += p[i] * std::log(p[i] / q[i]);
  const RowDivergence row = compare_rows(model.data(), reference.data(), 4, 2);
  EXPECT_NEAR(row.kl, kl, 1e-14);
  EXPECT_TRUE(row.same_top);
  EXPECT_NEAR(row.log_prob, std::log(q[2]), 1e-14);
  EXPECT_NEAR(row.reference_log_prob, std::log(p[2]), 1e-14);
  const RowDivergence same = compare_rows(model.data(), model.data(), 4, 0);
  EXPECT_EQ(same.kl, 0);
}

TEST(CompareRows, WhatTheReferenceExcludesCostsNothing) {
  const std::vector<float> model = {1, 2, 5}, reference = {1, 2, -INFINITY};
  const RowDivergence row = compare_rows(model.data(), reference.data(), 3, 0);
  const std::vector<double> q = softmax(model.data(), 3), p = softmax(reference.data(), 3);
  EXPECT_NEAR(row.kl, p[0] * std::log(p[0] / q[0]) + p[1] * std::log(p[1] / q[1]), 1e-14);
  EXPECT_FALSE(row.same_top);
}

TEST(ClusteredMean, CountsBlocksNotPositions) {
  // Two values, each four times: eight positions, but two observations with mean 2 and variance 2.
  const std::vector<double> values = {1, 1, 1, 1, 3, 3, 3, 3};
  const Estimate estimate = clustered_mean(values, std::vector<int64_t>{4, 4});
  EXPECT_DOUBLE_EQ(estimate.value, 2);
  EXPECT_NEAR(estimate.standard_error, 1, 1e-12);              // sqrt(2 / 2)
  EXPECT_NEAR(estimate.high - estimate.value, 12.7062, 1e-3);  // t with one degree of freedom
  // Blocks of one position are the ordinary standard error: variance 8/7 over 8.
  const Estimate single = clustered_mean(values, std::vector<int64_t>(8, 1));
  EXPECT_NEAR(single.standard_error, std::sqrt(1.0 / 7), 1e-12);
  EXPECT_NEAR(single.high - single.value, 2.3646 * std::sqrt(1.0 / 7), 1e-4);
  EXPECT_EQ(clustered_mean(values, std::vector<int64_t>{8}).standard_error, 0);
}

TEST(ClusteredMean, IntervalsOfManyBlocksAreNormal) {
  std::vector<double> values(2000);
  for (size_t i = 0; i < values.size(); ++i) values[i] = i % 2 == 0 ? 0.0 : 1.0;
  const Estimate estimate = clustered_mean(values, std::vector<int64_t>(2000, 1));
  EXPECT_NEAR((estimate.high - estimate.value) / estimate.standard_error, 1.9612, 1e-3);  // t, 1999
  // t with 9 degrees: the first that is not in the table.
  const Estimate ten = clustered_mean(std::span(values).first(10), std::vector<int64_t>(10, 1));
  EXPECT_NEAR((ten.high - ten.value) / ten.standard_error, 2.2622, 4e-4);
}

TEST(Divergence, AModelDoesNotDivergeFromItself) {
  const Bundle bundle = byte_bundle();
  WindowOptions options;
  options.context = 16;
  const Divergence result =
      measure_divergence(*bundle.model, *bundle.model, *bundle.tokenizer, kText, options);
  EXPECT_EQ(result.kl.value, 0);
  EXPECT_EQ(result.kl_max, 0);
  EXPECT_EQ(result.same_top.value, 1);
  EXPECT_EQ(result.perplexity_ratio.value, 1);
  EXPECT_EQ(result.perplexity_ratio.standard_error, 0);
  EXPECT_EQ(result.probability_rms, 0);
}

TEST(Divergence, EqualsOneWindowAtATime) {
  const Bundle model = byte_bundle(7), reference = byte_bundle(8);
  WindowOptions options;
  options.context = 16;
  const NoGrad off;
  std::vector<double> kl, ratio;
  double same = 0, own = 0, parent = 0;
  const std::vector<int32_t> tokens = bytes(kText);
  const auto count = static_cast<int64_t>(tokens.size()) / 16;
  for (int64_t w = 0; w < count; ++w) {
    const std::vector<int32_t> window(tokens.begin() + w * 16, tokens.begin() + w * 16 + 16);
    const Tensor a = model.model->logits(model.model->forward(window, Pass::whole({16}))),
                 b = reference.model->logits(reference.model->forward(window, Pass::whole({16})));
    for (int64_t t = 8; t < 15; ++t) {
      const auto q = softmax(a.data<float>() + t * 257, 257), p = softmax(b.data<float>() + t * 257, 257);
      double sum = 0;
      for (size_t i = 0; i < 257; ++i) sum += p[i] * std::log(p[i] / q[i]);
      kl.push_back(sum);
      const auto next = static_cast<size_t>(window[static_cast<size_t>(t) + 1]);
      own -= std::log(q[next]);
      parent -= std::log(p[next]);
      same +=
          std::max_element(q.begin(), q.end()) - q.begin() == std::max_element(p.begin(), p.end()) - p.begin()
              ? 1
              : 0;
    }
  }
  const auto n = static_cast<double>(kl.size());
  for (const int64_t batch_tokens : {16, 1000}) {
    options.batch_tokens = batch_tokens;
    const Divergence result =
        measure_divergence(*model.model, *reference.model, *model.tokenizer, kText, options);
    EXPECT_EQ(result.tokens, static_cast<int64_t>(kl.size()));
    EXPECT_EQ(result.windows, count);
    EXPECT_EQ(result.blocks, count * 2);  // 12 windows are fewer than kLeastBlocks
    // f32 logits of about 10 are good to 1e-6 each.
    EXPECT_NEAR(result.kl.value, std::accumulate(kl.begin(), kl.end(), 0.0) / n, 1e-4);
    EXPECT_NEAR(result.kl_max, *std::max_element(kl.begin(), kl.end()), 1e-4);
    EXPECT_NEAR(result.same_top.value, same / n, 1e-9);
    EXPECT_NEAR(result.perplexity.value, std::exp(own / n), 1e-4 * result.perplexity.value);
    EXPECT_NEAR(result.perplexity_ratio.value, std::exp((own - parent) / n),
                1e-4 * result.perplexity_ratio.value);
    EXPECT_LE(result.kl_median, result.kl_90);
    EXPECT_LE(result.kl_90, result.kl_99);
    EXPECT_LE(result.kl_99, result.kl_max);
    EXPECT_LT(result.kl.low, result.kl.value);
    EXPECT_GT(result.kl.high, result.kl.value);
  }
}

class ShiftedTokenizer : public ByteTokenizer {
 public:
  ShiftedTokenizer() { entry('A').bytes = "B"; }
};

TEST(Divergence, RefusesAnotherVocabulary) {
  const Bundle bundle = byte_bundle();
  const ModelInfo info = bundle.model->info();
  require_same_vocabulary(info, nullptr, info, *bundle.tokenizer);
  require_same_vocabulary(info, bundle.tokenizer.get(), info, *bundle.tokenizer);
  ModelInfo larger = info;
  larger.vocabulary = 300;
  EXPECT_EQ(error_of([&] { require_same_vocabulary(larger, nullptr, info, *bundle.tokenizer); }),
            "the model and its reference must have one vocabulary: the model gives 300 logits, the reference "
            "257");
  EXPECT_NE(error_of([&] {
              require_same_vocabulary(info, bundle.tokenizer.get(), info, ShiftedTokenizer());
            }).find("token 65 is '<65>' to the model and '<65>' to the reference"),
            std::string::npos);
}

TEST(Divergence, RefusesLogitsThatAreNoNumbers) {
  const Bundle bundle = byte_bundle();
  const Reciter broken({}, 64);
  WindowOptions options;
  options.context = 16;
  EXPECT_NE(error_of([&] {
              measure_divergence(broken, *bundle.model, *bundle.tokenizer, kText, options);
            }).find("the model gives logits that are no numbers at counted token 0"),
            std::string::npos);
  EXPECT_NE(error_of([&] {
              measure_divergence(*bundle.model, broken, *bundle.tokenizer, kText, options);
            }).find("the reference gives logits that are no numbers"),
            std::string::npos);
}

TEST(Divergence, RefusesTextsThatAreTooShort) {
  const Bundle bundle = byte_bundle();
  WindowOptions options;
  options.context = 32;
  EXPECT_EQ(error_of([&] {
              measure_divergence(*bundle.model, *bundle.model, *bundle.tokenizer, "short", options);
            }),
            "text: expected at least 64 tokens (two windows of 32), found 5");
}

}  // namespace
}  // namespace qkv::test
