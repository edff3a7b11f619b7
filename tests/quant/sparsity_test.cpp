#include "qkv/quant/sparsity.h"

#include "tests/quant/quant_support.h"

namespace qkv {
namespace {

int64_t zeros_in(const float* values, int64_t n) {
  return std::count(values, values + n, 0.0f);
}

class Pruned : public testing::Test {
 protected:
  const Tensor weight = test::random_matrix(32, 160, 8, 0.1f);
  const InputStatistics inputs = test::statistics_of(test::correlated_inputs(400, 160, 5));
};

TEST_F(Pruned, ExactlySoManyWeightsAreZero) {
  const SparsityPattern half{.share = 0.5}, third{.share = 0.3};
  EXPECT_EQ(sparsity_of(prune_by_magnitude(weight, half)), 0.5);
  const Tensor wanda = prune_wanda(weight, inputs, third);
  for (int64_t r = 0; r < 32; ++r) EXPECT_EQ(zeros_in(wanda.data<float>() + r * 160, 160), 48);
  const Tensor gpt = prune_sparsegpt(weight, inputs, half);
  EXPECT_EQ(sparsity_of(gpt), 0.5);
  EXPECT_EQ(sparsity_of(prune_by_magnitude(weight, {.share = 0})), 0);
}

TEST_F(Pruned, PatternsHoldInEveryGroup) {
  const SparsityPattern pattern{.zeros = 2, .of = 4};
  for (const Tensor& pruned : {prune_by_magnitude(weight, pattern), prune_wanda(weight, inputs, pattern),
                               prune_sparsegpt(weight, inputs, pattern)}) {
    for (int64_t i = 0; i < pruned.elements(); i += 4)
      ASSERT_EQ(zeros_in(pruned.data<float>() + i, 4), 2) << i;
  }
  // Groups of 3 do not divide the blocks of 128 columns, nor 160.
  const Tensor thirds = prune_sparsegpt(weight, inputs, {.zeros = 1, .of = 3});
  for (int64_t r = 0; r < 32; ++r)
    for (int64_t c = 0; c + 3 <= 160; c += 3) ASSERT_EQ(zeros_in(thirds.data<float>() + r * 160 + c, 3), 1);
}

TEST_F(Pruned, WhatIsKeptMatters) {
  // The kept weights of magnitude and Wanda are as they were, and no dropped one is larger than a kept one.
  const Tensor pruned = prune_by_magnitude(weight, {.share = 0.5});
  float largest_dropped = 0, smallest_kept = 1e9f;
  for (int64_t i = 0; i < weight.elements(); ++i) {
    const float before = weight.data<float>()[i], after = pruned.data<float>()[i];
    if (after == 0) {
      largest_dropped = std::max(largest_dropped, std::abs(before));
    } else {
      EXPECT_EQ(after, before);
      smallest_kept = std::min(smallest_kept, std::abs(before));
    }
  }
  EXPECT_LE(largest_dropped, smallest_kept);
}

TEST_F(Pruned, ErrorsAreOrderedAsThePapersSay) {
  for (const SparsityPattern pattern :
       {SparsityPattern{.share = 0.5}, SparsityPattern{.zeros = 2, .of = 4}}) {
    const double magnitude = output_error(weight, prune_by_magnitude(weight, pattern), inputs.products());
    const double wanda = output_error(weight, prune_wanda(weight, inputs, pattern), inputs.products());
    const double sparsegpt =
        output_error(weight, prune_sparsegpt(weight, inputs, pattern), inputs.products());
    EXPECT_LT(wanda, 0.8 * magnitude);
    EXPECT_LT(sparsegpt, 0.5 * magnitude);
    EXPECT_LT(sparsegpt, wanda);
  }
}

TEST_F(Pruned, NonsenseIsRefused) {
  EXPECT_EQ(test::error_of([&] { (void)prune_by_magnitude(weight, {.share = 1}); }),
            "sparsity: expected a share from 0 to below 1, found 1");
  EXPECT_EQ(test::error_of([&] { (void)prune_wanda(weight, inputs, {.zeros = 4, .of = 4}); }),
            "sparsity: expected a pattern such as 2:4, found 4 zeros of 4");
  EXPECT_EQ(test::error_of([&] {
              (void)prune_wanda(Tensor::zeros({2, 3}), inputs, {});
            }),
            "wanda: expected statistics of 3 inputs, found 160");
}

}  // namespace
}  // namespace qkv
