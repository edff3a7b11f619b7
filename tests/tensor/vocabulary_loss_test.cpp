// The chunked losses against the plain one, for every chunk size and option.
#include "tests/tensor/tensor_testing.h"

namespace qkv::test {
namespace {

constexpr int64_t kTokens = 23, kChannels = 12, kVocabulary = 37;

std::vector<int32_t> some_targets() {
  Rng rng(5);
  std::vector<int32_t> targets;
  for (int64_t t = 0; t < kTokens; ++t) targets.push_back(t % 5 == 2 ? ops::kIgnore : static_cast<int32_t>(rng.below(kVocabulary)));
  return targets;
}

TEST(LinearCrossEntropy, EqualsTheLossOfAllLogitsForEveryChunk) {
  const std::vector<int32_t> targets = some_targets();
  for (int variant = 0; variant < 5; ++variant) {
    ops::CrossEntropyOptions options;
    if (variant == 1 || variant == 4) options.label_smoothing = 0.1f;
    if (variant == 2 || variant == 4) options.z_loss = 1e-2f;
    if (variant == 3 || variant == 4) options.softcap = 2.0f;
    if (variant == 4) options.logit_scale = 0.5f;
    const Tensor h1 = random_leaf({kTokens, kChannels}, 1), w1 = random_leaf({kVocabulary, kChannels}, 2);
    const Tensor whole = ops::scale(ops::cross_entropy(ops::linear(h1, w1), targets, options), 0.25f);
    backward(whole);
    for (int64_t chunk : {0, 1, 2, 7, 16, 23, 100}) {
      SCOPED_TRACE(::testing::Message() << "variant " << variant << ", chunks of " << chunk);
      options.chunk_rows = chunk;
      const Tensor h2 = random_leaf({kTokens, kChannels}, 1), w2 = random_leaf({kVocabulary, kChannels}, 2);
      const Tensor loss = ops::scale(ops::linear_cross_entropy(h2, w2, targets, options), 0.25f);
      backward(loss);
      EXPECT_TRUE(close(loss, values_of(whole), 1e-6));
      EXPECT_TRUE(close(h2.grad(), values_of(h1.grad()), 3e-6));
      EXPECT_TRUE(close(w2.grad(), values_of(w1.grad()), 3e-6));
      const NoGrad off;
      EXPECT_TRUE(close(ops::linear_cross_entropy(h2, w2, targets, options), values_of(ops::cross_entropy(ops::linear(h1, w1), targets, options)), 1e-6));
    }
  }
}

TEST(LinearCrossEntropy, WeightsOfOneAndZeroAreKeepingAndIgnoring) {
  std::vector<int32_t> targets = some_targets(), all = targets;
  std::vector<float> weights(targets.size(), 1.0f);
  for (size_t t = 0; t < targets.size(); ++t) {
    if (targets[t] != ops::kIgnore) continue;
    all[t] = 3;
    weights[t] = 0;
  }
  const Tensor h1 = random_leaf({kTokens, kChannels}, 1), w1 = random_leaf({kVocabulary, kChannels}, 2);
  const Tensor h2 = random_leaf({kTokens, kChannels}, 1), w2 = random_leaf({kVocabulary, kChannels}, 2);
  const Tensor ignored = ops::linear_cross_entropy(h1, w1, targets), weighted = ops::linear_cross_entropy(h2, w2, all, {}, weights);
  EXPECT_TRUE(same_bits(ignored, weighted));
  backward(ignored);
  backward(weighted);
  EXPECT_TRUE(same_bits(h1.grad(), h2.grad()));
  EXPECT_TRUE(same_bits(w1.grad(), w2.grad()));
}

TEST(LinearCrossEntropy, AllIgnoredAndEmpty) {
  for (int64_t tokens : {int64_t{0}, int64_t{5}}) {
    const Tensor h = random_leaf({tokens, kChannels}, 1), w = random_leaf({kVocabulary, kChannels}, 2);
    const std::vector<int32_t> targets(static_cast<size_t>(tokens), ops::kIgnore);
    const Tensor loss = ops::linear_cross_entropy(h, w, targets);
    EXPECT_EQ(loss.item(), 0.0f);
    backward(loss);
    EXPECT_EQ(values_of(h.grad()), Doubles(static_cast<size_t>(tokens * kChannels), 0.0));
    EXPECT_EQ(values_of(w.grad()), Doubles(static_cast<size_t>(kVocabulary * kChannels), 0.0));
    w.grad().fill(NAN);
    Tensor(w).clear_grad();
    const Tensor log_probs = ops::linear_log_probs(h, w, targets);
    EXPECT_EQ(values_of(log_probs), Doubles(static_cast<size_t>(tokens), 0.0));
    backward(ops::sum(log_probs));
    EXPECT_EQ(values_of(w.grad()), Doubles(static_cast<size_t>(kVocabulary * kChannels), 0.0));
  }
}

TEST(LinearLogProbs, AreTheLogSoftmaxOfTheTargets) {
  std::vector<int32_t> targets = some_targets(), columns = targets;
  for (int32_t& c : columns) c = c == ops::kIgnore ? 0 : c;
  const Tensor h1 = random_leaf({kTokens, kChannels}, 1), w1 = random_leaf({kVocabulary, kChannels}, 2);
  Tensor upstream = random_tensor({kTokens}, 3), masked = upstream.clone();
  for (int64_t t = 0; t < kTokens; ++t) {
    if (targets[static_cast<size_t>(t)] == ops::kIgnore) masked.data<float>()[t] = 0;
  }
  const Tensor plain = ops::gather_cols(ops::log_softmax(ops::linear(h1, w1)), columns);
  backward(plain, masked);
  Doubles expected = values_of(plain);
  for (size_t t = 0; t < expected.size(); ++t) {
    if (targets[t] == ops::kIgnore) expected[t] = 0;
  }
  for (int64_t chunk : {0, 1, 5, 23}) {
    ops::CrossEntropyOptions options;
    options.chunk_rows = chunk;
    const Tensor h2 = random_leaf({kTokens, kChannels}, 1), w2 = random_leaf({kVocabulary, kChannels}, 2);
    const Tensor log_probs = ops::linear_log_probs(h2, w2, targets, options);
    EXPECT_TRUE(close(log_probs, expected, 1e-6));
    backward(log_probs, upstream);
    EXPECT_TRUE(close(h2.grad(), values_of(h1.grad()), 3e-6));
    EXPECT_TRUE(close(w2.grad(), values_of(w1.grad()), 3e-6));
  }
}

TEST(CrossEntropy, LeavesItsLogitsAlone) {
  const Tensor logits = random_leaf({4, 9}, 1);
  const Doubles before = values_of(logits);
  backward(ops::cross_entropy(logits, {0, 1, 2, 3}));
  EXPECT_EQ(values_of(logits), before);
}

TEST(CrossEntropy, DivergenceIsVisible) {
  Tensor h = random_tensor({3, 4}, 1);
  h.data<float>()[5] = NAN;
  const Tensor w = random_tensor({9, 4}, 2);
  EXPECT_TRUE(std::isnan(ops::linear_cross_entropy(h, w, {0, 1, 2}).item()));
  EXPECT_TRUE(std::isnan(ops::cross_entropy(ops::linear(h, w), {0, 1, 2}).item()));
}

}  // namespace
}  // namespace qkv::test
