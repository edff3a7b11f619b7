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
