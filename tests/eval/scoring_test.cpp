#include "qkv/eval/scoring.h"

#include <gtest/gtest.h>

#include "qkv/eval/perplexity.h"
#include "tests/eval/eval_support.h"
#include "tests/support/test_paths.h"

namespace qkv::test {
namespace {

Continuation continuation(std::string_view context, std::string_view text) {
  return encode_continuation(ByteTokenizer(), std::string(context), std::string(text), false);
}

TEST(EncodeContinuation, SpacesBelongToTheContinuation) {
  const Continuation item = continuation("The cat  ", "sat");
  EXPECT_EQ(item.tokens, bytes("The cat  sat"));
  EXPECT_EQ(item.scored, 5);
}

TEST(EncodeContinuation, NoContextBeginsWithTheEndToken) {
  const Continuation item = continuation("", "hi");
  EXPECT_EQ(item.tokens, (std::vector<int32_t>{ByteTokenizer::kEnd, 'h', 'i'}));
  EXPECT_EQ(item.scored, 2);
  EXPECT_NE(error_of([] { continuation("text", ""); }).find("has no token of its own"), std::string::npos);
}

TEST(ScoreContinuations, EqualOneByOneSums) {
  const Bundle bundle = byte_bundle();
  const std::vector<Continuation> items = {continuation("a", "b"), continuation("Hello, ", "world"),
                                           continuation("xyz", " and more of it"),
                                           continuation("Hello, ", "there")};
  for (int64_t batch_tokens : {1, 20, 4096}) {
    ScoringOptions options;
    options.batch_tokens = batch_tokens;
    const auto scores = score_continuations(*bundle.model, items, options);
    for (size_t i = 0; i < items.size(); ++i) {
      const std::vector<double> all = plain_log_probs(*bundle.model, items[i].tokens);
      double expected = 0;
      for (auto it = all.end() - items[i].scored; it != all.end(); ++it) expected += *it;
      EXPECT_NEAR(scores[i].log_likelihood, expected, 1e-4) << i << ", " << batch_tokens;
    }
  }
}

TEST(ScoreContinuations, LongTextsLoseTheirBeginning) {
  const Bundle bundle = byte_bundle();
  const std::string context = "a long context that will not fit the window";
  ScoringOptions options;
  options.max_context = 10;
  const auto score = score_continuations(*bundle.model, {continuation(context, " end")}, options)[0];
  const std::vector<int32_t> tokens = bytes(context + " end");
  const std::vector<double> all = plain_log_probs(*bundle.model, {tokens.end() - 11, tokens.end()});
  double expected = 0;
  for (auto it = all.end() - 4; it != all.end(); ++it) expected += *it;
  EXPECT_NEAR(score.log_likelihood, expected, 1e-4);
}

TEST(ScoreContinuations, GreedyMeansEveryToken) {
  const Bundle bundle = byte_bundle();
  const NoGrad off;
  std::vector<int32_t> tokens = bytes("abc");
  for (int i = 0; i < 3; ++i) {  // what the model itself would say
    const Tensor logits = bundle.model->logits(
        bundle.model->forward(tokens, Pass::whole({static_cast<int64_t>(tokens.size())})));
    const float* row = logits.data<float>() + (logits.rows() - 1) * logits.cols();
    tokens.push_back(static_cast<int32_t>(std::max_element(row, row + logits.cols()) - row));
  }
  Continuation own{tokens, 3}, other = own;
  other.tokens[4] = (other.tokens[4] + 1) % 256;
  const auto scores = score_continuations(*bundle.model, {own, other});
  EXPECT_TRUE(scores[0].greedy);
  EXPECT_FALSE(scores[1].greedy);
}

TEST(EstimateMean, IsTheSampleStandardError) {
  const MeanEstimate estimate = estimate_mean({1, 0, 0, 1, 1});
  EXPECT_DOUBLE_EQ(estimate.mean, 0.6);
  EXPECT_NEAR(estimate.standard_error, std::sqrt(0.3 / 5), 1e-12);  // variance 1.2 / 4
  EXPECT_EQ(estimate_mean({3}).standard_error, 0);
}

TEST(Perplexity, AdjacentWindowsCountTheirSecondHalves) {
  const Bundle bundle = byte_bundle();
  const std::string text =
      "It was a bright cold day in April, and the clocks were striking thirteen.";  // 73 bytes
  WindowOptions options;
  options.context = 16;
  for (int64_t batch_tokens : {16, 1000}) {
    options.batch_tokens = batch_tokens;
    const Perplexity result = measure_perplexity(*bundle.model, *bundle.tokenizer, text, options);
    double sum = 0;
    const std::vector<int32_t> tokens = bytes(text);
    for (size_t w = 0; w < 4; ++w) {
      const auto all = plain_log_probs(*bundle.model, {tokens.begin() + static_cast<int64_t>(w * 16),
                                                       tokens.begin() + static_cast<int64_t>(w * 16 + 16)});
      for (size_t t = 8; t < 15; ++t) sum -= all[t];
    }
    EXPECT_EQ(result.windows, 4);
    EXPECT_EQ(result.tokens, 28);
    EXPECT_NEAR(result.negative_log_likelihood, sum / 28, 1e-5);
    EXPECT_NEAR(result.perplexity, std::exp(sum / 28), 1e-4 * result.perplexity);
    EXPECT_NEAR(result.bits_per_byte, sum / 28 / std::log(2.0), 1e-5);
  }
}

TEST(Perplexity, SlidingWindowsCountEveryTokenOnce) {
  const Bundle bundle = byte_bundle();
  const std::string text = "It was a bright cold day in April, and the clocks were striking thirteen.";
  WindowOptions options;
  options.context = 20;
  options.stride = 7;
  const Perplexity result = measure_perplexity(*bundle.model, *bundle.tokenizer, text, options);
  EXPECT_EQ(result.tokens, static_cast<int64_t>(text.size()) - 1);
  const std::vector<int32_t> tokens = bytes(text);
  double sum = 0;
  size_t counted = 1;
  for (size_t begin = 0; counted < tokens.size(); begin += 7) {
    const size_t end = std::min(begin + 20, tokens.size());
    const auto all = plain_log_probs(*bundle.model, {tokens.begin() + static_cast<int64_t>(begin),
                                                     tokens.begin() + static_cast<int64_t>(end)});
    for (; counted < end; ++counted) sum -= all[counted - begin - 1];
  }
  EXPECT_NEAR(result.negative_log_likelihood, sum / static_cast<double>(tokens.size() - 1), 1e-5);
}

TEST(Perplexity, RefusesTextsThatAreTooShort) {
  const Bundle bundle = byte_bundle();
  WindowOptions options;
  options.context = 32;
  EXPECT_EQ(error_of([&] { measure_perplexity(*bundle.model, *bundle.tokenizer, "short", options); }),
            "text: expected at least 64 tokens (two windows of 32), found 5");
  options.context = 1000;
  EXPECT_NE(error_of([&] {
              measure_perplexity(*bundle.model, *bundle.tokenizer, "short", options);
            }).find("expected windows of 2 to 64 tokens"),
            std::string::npos);
}

}  // namespace
}  // namespace qkv::test
