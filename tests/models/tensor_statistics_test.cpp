// Statistics of stored tensors against values computed by hand and in plain double precision.
#include "qkv/models/tensor_statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "qkv/core/parallel.h"
#include "qkv/core/rng.h"

namespace qkv {
namespace {

TEST(TensorStatistics, SmallTensorByHand) {
  const float inf = std::numeric_limits<float>::infinity();
  const TensorStatistics s =
      tensor_statistics(Tensor::from<float>({1, 0, -3, std::nanf(""), inf, -inf, 0, 2}, {2, 4}));
  EXPECT_EQ(s.elements, 8);
  EXPECT_EQ(s.zeros, 2);
  EXPECT_EQ(s.nans, 1);
  EXPECT_EQ(s.infinities, 2);
  EXPECT_EQ(s.minimum, -3);
  EXPECT_EQ(s.maximum, 2);
  EXPECT_EQ(s.mean, 0);
  EXPECT_DOUBLE_EQ(s.deviation, std::sqrt(14.0 / 5));
  EXPECT_DOUBLE_EQ(s.kurtosis, 5 * (1 + 81 + 16) / (14.0 * 14.0));
}

TEST(TensorStatistics, NothingToMeasure) {
  const TensorStatistics nan = tensor_statistics(Tensor::full({3}, std::nanf("")));
  EXPECT_EQ(nan.nans, 3);
  EXPECT_EQ(nan.deviation, 0);
  EXPECT_EQ(tensor_statistics(Tensor::zeros({0, 4})).elements, 0);
  EXPECT_EQ(tensor_statistics(Tensor::full({9}, 7)).kurtosis, 0);
}

// Joined pieces must agree with one pass over all in double precision: the moments' error is bounded by the
// rounding of sums of 3 * 2^16 terms, far below 1e-9.
TEST(TensorStatistics, ManyPiecesOnAnyNumberOfThreads) {
  const int64_t n = (1 << 17) + 12345;
  std::vector<float> values(static_cast<size_t>(n));
  Rng rng(7, 1);
  for (auto& value : values) value = 5 + 2 * rng.normal();
  double mean = 0, m2 = 0, m4 = 0;
  for (const float x : values) mean += double{x} / static_cast<double>(n);
  for (const float x : values) {
    const double d = x - mean;
    m2 += d * d;
    m4 += d * d * d * d;
  }
  const Tensor tensor = Tensor::from(values, {n});
  const int before = num_threads();
  set_num_threads(1);
  const TensorStatistics one = tensor_statistics(tensor);
  set_num_threads(3);
  const TensorStatistics three = tensor_statistics(tensor);
  set_num_threads(before);
  EXPECT_NEAR(one.mean, mean, 1e-9);
  EXPECT_NEAR(one.deviation, std::sqrt(m2 / static_cast<double>(n)), 1e-9);
  EXPECT_NEAR(one.kurtosis, static_cast<double>(n) * m4 / (m2 * m2), 1e-9);
  EXPECT_EQ(one.kurtosis, three.kurtosis);
  EXPECT_EQ(one.entropy, three.entropy);
}

TEST(TensorStatistics, EntropyOfCodes) {
  // Two bf16 values, equally often: one bit per symbol; their exponents differ.
  std::vector<float> values(256);
  for (size_t i = 0; i < values.size(); ++i) values[i] = i % 2 == 0 ? 1.0f : 2.0f;
  const TensorStatistics bf16 = tensor_statistics(Tensor::from(values, {256}).to(DType::bf16));
  EXPECT_EQ(bf16.symbol_bits, 16);
  EXPECT_DOUBLE_EQ(bf16.entropy, 1);
  EXPECT_DOUBLE_EQ(*bf16.exponent_entropy, 1);
  EXPECT_EQ(bf16.exponent_bits, 8);
  // As f32 (3f800000, 40000000) half of all bytes are 0, a quarter of them certain: 00 00 80 3f and 00 00
  // 00 40.
  const TensorStatistics f32 = tensor_statistics(Tensor::from(values, {256}));
  const double expected = -(5.0 / 8 * std::log2(5.0 / 8) + 3 * (1.0 / 8) * std::log2(1.0 / 8));
  EXPECT_EQ(f32.symbol_bits, 8);
  EXPECT_NEAR(f32.entropy, expected, 1e-12);
  EXPECT_DOUBLE_EQ(*f32.exponent_entropy, 1);
  // The same exponent everywhere says nothing.
  EXPECT_DOUBLE_EQ(
      *tensor_statistics(Tensor::from<float>({1, 1.5f, 1.25f}, {3}).to(DType::f16)).exponent_entropy, 0);
}

TEST(TensorStatistics, EntropyOfPlanes) {
  // 1 and 2 in turn: 3f80 and 4000 as bf16, so each byte is one of two values, and together they are one bit.
  std::vector<float> values(256);
  for (size_t i = 0; i < values.size(); ++i) values[i] = i % 2 == 0 ? 1.0f : 2.0f;
  const TensorStatistics two = tensor_statistics(Tensor::from(values, {256}).to(DType::bf16));
  EXPECT_EQ(two.plane_entropy, (std::vector<double>{1, 1}));
  EXPECT_DOUBLE_EQ(two.entropy_share(), 2.0 / 16);
  const TensorStatistics four = tensor_statistics(Tensor::from(values, {256}));
  EXPECT_EQ(four.plane_entropy, (std::vector<double>{0, 0, 1, 1}));
  EXPECT_DOUBLE_EQ(four.entropy_share(), 2.0 / 32);
  Tensor small = Tensor::empty({4}, DType::i8);
  for (int i = 0; i < 4; ++i) small.raw()[i] = static_cast<std::byte>(1 + i % 2);
  const TensorStatistics bytes = tensor_statistics(small);
  EXPECT_TRUE(bytes.plane_entropy.empty());
  EXPECT_DOUBLE_EQ(bytes.entropy_share(), 1.0 / 8);
}

TEST(ChannelSizes, OfRowsAndColumns) {
  const float nan = std::nanf("");
  const ChannelSizes sizes = channel_sizes(Tensor::from<float>({3, 4, 0, 0, nan, 2}, {3, 2}));
  EXPECT_DOUBLE_EQ(sizes.rows[0], std::sqrt(12.5));
  EXPECT_DOUBLE_EQ(sizes.rows[1], 0);
  EXPECT_DOUBLE_EQ(sizes.rows[2], std::sqrt(2.0));
  EXPECT_DOUBLE_EQ(sizes.columns[0], std::sqrt(3.0));
  EXPECT_DOUBLE_EQ(sizes.columns[1], std::sqrt(20.0 / 3));
  EXPECT_TRUE(channel_sizes(Tensor::zeros({5})).rows.empty());
  // Leading dimensions are rows, and the sums do not depend on the number of threads.
  std::vector<float> values(static_cast<size_t>(7 * 50 * 33));
  Rng rng(1);
  for (float& value : values) value = rng.normal();
  const Tensor stacked = Tensor::from(values, {7, 50, 33});
  const int before = num_threads();
  set_num_threads(1);
  const ChannelSizes one = channel_sizes(stacked);
  set_num_threads(3);
  const ChannelSizes three = channel_sizes(stacked);
  set_num_threads(before);
  EXPECT_EQ(one.rows.size(), 350u);
  EXPECT_EQ(one.columns, three.columns);
  EXPECT_EQ(one.rows, three.rows);
}

TEST(ChannelOutliers, StandFarOut) {
  std::vector<double> sizes(100);
  for (size_t i = 0; i < sizes.size(); ++i) sizes[i] = 1 + 0.01 * static_cast<double>(i % 10);
  sizes[17] = 3;
  sizes[40] = 5;
  sizes[60] = 0;
  sizes[61] = 1.9;  // beyond the spread, but not twice the others
  const ChannelOutliers found = channel_outliers(sizes);
  EXPECT_EQ(found.channels, 100);
  EXPECT_EQ(found.zero, 1);
  ASSERT_EQ(found.outliers, 2);
  EXPECT_EQ(found.largest[0].index, 40);
  EXPECT_EQ(found.largest[0].size, 5);
  EXPECT_EQ(found.largest[1].index, 17);
  // Sizes that are spread themselves have no outliers: the largest is far, and others are on the way to it.
  for (size_t i = 0; i < sizes.size(); ++i) sizes[i] = static_cast<double>(i);
  EXPECT_EQ(channel_outliers(sizes).outliers, 0);
  EXPECT_EQ(channel_outliers({}).channels, 0);
  EXPECT_EQ(channel_outliers({2}).outliers, 0);
  EXPECT_EQ(channel_outliers(std::vector<double>(50, 0.0)).zero, 50);
}

TEST(TensorStatistics, QuantizedAndIntegerTensors) {
  std::vector<float> values(64);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i) - 32;
  const Tensor quantized = Tensor::from(values, {2, 32}).to(DType::q8_0);
  const TensorStatistics s = tensor_statistics(quantized);
  EXPECT_EQ(s.elements, 64);
  EXPECT_NEAR(s.minimum, -32, 32.0 / 127);
  EXPECT_FALSE(s.exponent_entropy.has_value());
  const TensorStatistics whole = tensor_statistics(Tensor::from<int64_t>({3, -4, 0, 1}, {4}));
  EXPECT_EQ(whole.minimum, -4);
  EXPECT_EQ(whole.zeros, 1);
}

TEST(TensorStatistics, Histogram) {
  const Tensor tensor = Tensor::from<float>({0, 0.5f, 1, 1.5f, 2, std::nanf(""), 9}, {7});
  EXPECT_EQ(tensor_histogram(tensor, 0, 2, 2), (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(tensor_histogram(Tensor::full({5}, 1), 1, 1, 3), (std::vector<int64_t>{5, 0, 0}));
}

}  // namespace
}  // namespace qkv
