// Quantizing searches: what they reach against plain rounding, what they keep exactly, and odd inputs.
#include "qkv/quant/quantize.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "qkv/core/error.h"
#include "qkv/core/rng.h"
#include "qkv/kernels/kernels.h"
#include "tests/support/random_blocks.h"

namespace qkv::test {
namespace {

std::vector<BlockType> searched_types() {
  std::vector<BlockType> types;
  for (const BlockType type : all_block_types()) {
    if (type != BlockType::q8_1 && type != BlockType::q8_k) types.push_back(type);
  }
  return types;
}

std::vector<float> normal_rows(int64_t n, uint64_t seed, float deviation = 0.02f) {
  Rng rng(seed);
  std::vector<float> x(static_cast<size_t>(n));
  for (float& v : x) v = deviation * rng.normal();
  return x;
}

std::vector<uint8_t> quantized(BlockType type, const std::vector<float>& x, int64_t cols,
                               const float* importance = nullptr) {
  const auto n = static_cast<int64_t>(x.size());
  std::vector<uint8_t> blocks(static_cast<size_t>(n / block_length(type) * block_bytes(type)));
  quantize_rows(type, x.data(), n / cols, cols, importance, blocks.data());
  return blocks;
}

std::vector<float> restored(BlockType type, const std::vector<uint8_t>& blocks) {
  std::vector<float> x(blocks.size() / static_cast<size_t>(block_bytes(type)) *
                       static_cast<size_t>(block_length(type)));
  kernels().blocks.dequantize[type](blocks.data(), x.data(), static_cast<int64_t>(x.size()));
  return x;
}

double error_of(const std::vector<float>& x, const std::vector<float>& back,
                const float* importance = nullptr, size_t cols = 1) {
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double d = static_cast<double>(x[i]) - static_cast<double>(back[i]);
    sum += (importance == nullptr ? 1.0 : static_cast<double>(importance[i % cols])) * d * d;
  }
  return sum;
}

// Root mean square errors of normal values, as parts of their deviation: the rate-distortion limit 2^-bits
// where it is a bound, and what every type was found to reach plus a twentieth (at two bits and less: e of
// the least squares, e / sqrt(1 - e^2) once blocks are as long as their values).
TEST(Quantize, ErrorsOfNormalValues) {
  struct Case {
    BlockType type;
    double bits, most;
  };
  const std::vector<Case> cases = {{BlockType::q4_0, 4.5, 0.088},       {BlockType::q4_1, 5, 0.074},
                                   {BlockType::q5_0, 5.5, 0.044},       {BlockType::q5_1, 6, 0.036},
                                   {BlockType::q8_0, 8.5, 0.0056},      {BlockType::q2_k, 2.625, 0.28},
                                   {BlockType::q3_k, 3.4375, 0.152},    {BlockType::q4_k, 4.5, 0.074},
                                   {BlockType::q5_k, 5.5, 0.037},       {BlockType::q6_k, 6.5625, 0.019},
                                   {BlockType::iq4_nl, 4.5, 0.080},     {BlockType::iq4_xs, 4.25, 0.085},
                                   {BlockType::mxfp4, 4.25, 0.12},      {BlockType::iq3_s, 3.4375, 0.145},
                                   {BlockType::iq3_xxs, 3.0625, 0.185}, {BlockType::iq2_s, 2.5625, 0.26},
                                   {BlockType::iq2_xs, 2.3125, 0.306},  {BlockType::iq2_xxs, 2.0625, 0.354},
                                   {BlockType::iq1_m, 1.75, 0.498},     {BlockType::iq1_s, 1.5625, 0.547},
                                   {BlockType::tq1_0, 1.6875, 0.518},   {BlockType::tq2_0, 2.0625, 0.518}};
  const std::vector<float> x = normal_rows(64 * 512, 1);
  for (const Case& c : cases) {
    const double error =
        std::sqrt(error_of(x, restored(c.type, quantized(c.type, x, 512))) / static_cast<double>(x.size())) /
        0.02;
    EXPECT_LT(error, c.most) << name_of(c.type);
    EXPECT_GT(error, std::exp2(-c.bits)) << name_of(c.type);
  }
}

// The error of what is stored is orthogonal to the weights, with importances too: outputs are not shrunk.
// What is left is the f16 rounding of the block's number (2^-11 of it at most).
TEST(Quantize, BlocksAreAsLongAsTheirValues) {
  const std::vector<float> x = normal_rows(32 * 512, 5);
  Rng rng(6);
  std::vector<float> importance(512);
  for (float& w : importance) w = std::exp(rng.normal());
  for (const BlockType type : searched_types()) {
    if (type == BlockType::mxfp4) continue;  // its scales are powers of two
    for (const float* w : std::initializer_list<const float*>{nullptr, importance.data()}) {
      const std::vector<float> back = restored(type, quantized(type, x, 512, w));
      double values = 0, products = 0;
      for (size_t i = 0; i < x.size(); ++i) {
        const double weight = w == nullptr ? 1.0 : static_cast<double>(w[i % 512]);
        values += weight * static_cast<double>(x[i]) * static_cast<double>(x[i]);
        products += weight * static_cast<double>(x[i]) * static_cast<double>(back[i]);
      }
      EXPECT_NEAR(products / values, 1, std::exp2(-11)) << name_of(type) << (w == nullptr ? "" : " weighted");
    }
  }
}

TEST(Quantize, NoWorseThanPlainRounding) {
  const std::vector<float> x = normal_rows(32 * 512, 2);
  for (const BlockType type : searched_types()) {
    if (kernels().blocks.quantize[type] == nullptr) continue;
    std::vector<uint8_t> rounded(x.size() / static_cast<size_t>(block_length(type)) *
                                 static_cast<size_t>(block_bytes(type)));
    kernels().blocks.quantize[type](x.data(), rounded.data(), static_cast<int64_t>(x.size()));
    EXPECT_LE(error_of(x, restored(type, quantized(type, x, 512))), error_of(x, restored(type, rounded)))
        << name_of(type);
  }
}

// Values that a type can hold exactly come back nearly so: the search finds the scales that they were made
// with.
TEST(Quantize, ValuesOfABlockComeBack) {
  for (const BlockType type :
       {BlockType::q4_0, BlockType::q4_1, BlockType::q5_0, BlockType::q5_1, BlockType::q8_0, BlockType::q3_k,
        BlockType::q6_k, BlockType::iq4_nl, BlockType::iq4_xs, BlockType::tq1_0, BlockType::mxfp4}) {
    const std::vector<float> x = restored(type, random_blocks(type, 8, 4));
    double size = 0;
    for (const float v : x) size += static_cast<double>(v) * static_cast<double>(v);
    const double part = error_of(x, restored(type, quantized(type, x, block_length(type)))) / size;
    EXPECT_LT(part, 0.003) << name_of(type);
  }
}

TEST(Quantize, ImportantColumnsAreBetter) {
  const int64_t cols = 512;
  const std::vector<float> x = normal_rows(32 * cols, 6);
  std::vector<float> importance(static_cast<size_t>(cols));
  Rng rng(7);
  for (float& v : importance) v = std::exp(2 * rng.normal());
  for (const BlockType type : searched_types()) {
    const double plain =
        error_of(x, restored(type, quantized(type, x, cols)), importance.data(), static_cast<size_t>(cols));
    const double weighted = error_of(x, restored(type, quantized(type, x, cols, importance.data())),
                                     importance.data(), static_cast<size_t>(cols));
    EXPECT_LT(weighted, plain) << name_of(type);
  }
}

TEST(Quantize, RowsDoNotDependOnEachOther) {
  const int64_t cols = 768, rows = 5;
  const std::vector<float> x = normal_rows(rows * cols, 8);
  std::vector<float> importance = normal_rows(cols, 9, 1.0f);
  for (float& v : importance) v = v * v;
  for (const BlockType type : searched_types()) {
    const auto all = quantized(type, x, cols, importance.data());
    std::vector<uint8_t> one(all.size() / rows);
    for (int64_t r = 0; r < rows; ++r) {
      quantize_rows(type, x.data() + r * cols, 1, cols, importance.data(), one.data());
      EXPECT_EQ(std::memcmp(one.data(), all.data() + static_cast<size_t>(r) * one.size(), one.size()), 0)
          << name_of(type) << " row " << r;
    }
  }
}

TEST(Quantize, ZerosStayZero) {
  const std::vector<float> x(1024, 0.0f);
  const std::vector<float> importance(512, 0.0f);
  for (const BlockType type : searched_types()) {
    for (const float v : restored(type, quantized(type, x, 512))) ASSERT_EQ(v, 0.0f) << name_of(type);
    for (const float v : restored(type, quantized(type, x, 512, importance.data())))
      ASSERT_EQ(v, 0.0f) << name_of(type);
  }
}

// Ternary weights are what tq1_0 and tq2_0 are for.
TEST(Quantize, TernaryWeightsAreExact) {
  std::vector<float> x;
  Rng rng(10);
  for (int i = 0; i < 2048; ++i)
    x.push_back(0.0625f * (std::floor(3 * static_cast<float>(rng.uniform())) - 1));
  for (const BlockType type : {BlockType::tq1_0, BlockType::tq2_0})
    EXPECT_EQ(restored(type, quantized(type, x, 512)), x);
}

// Scales stay finite whatever finite values come; tiny values do not become NaN.
TEST(Quantize, ExtremeValuesStayFinite) {
  for (const float size : {65504.0f, 1000.0f, 1e-8f, 1e-30f, 1e-44f}) {
    std::vector<float> x = normal_rows(512, 11, 1.0f);
    for (float& v : x) v = std::max(-1.0f, std::min(1.0f, v)) * size;
    for (const BlockType type : searched_types()) {
      for (const float v : restored(type, quantized(type, x, 256))) {
        ASSERT_TRUE(std::isfinite(v)) << name_of(type) << " " << size;
      }
    }
  }
}

TEST(Quantize, RefusesBrokenBlocks) {
  const std::vector<float> x(100, 1.0f);
  uint8_t out[1000];
  EXPECT_THROW(quantize_rows(BlockType::q4_k, x.data(), 1, 100, nullptr, out), Error);
}

TEST(Quantize, NeedsImportance) {
  EXPECT_TRUE(needs_importance(BlockType::iq2_xxs));
  EXPECT_FALSE(needs_importance(BlockType::iq3_s));
  EXPECT_FALSE(needs_importance(BlockType::q4_k));
}

}  // namespace
}  // namespace qkv::test
