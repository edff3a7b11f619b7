// Error-compensated rounding into GGUF's block types.
#include "qkv/quant/block_rounding.h"

#include <gtest/gtest.h>

#include "qkv/quant/quantize.h"
#include "tests/quant/quant_support.h"

namespace qkv {
namespace {

std::vector<DType> types() {
  std::vector<DType> result;
  for (int i = 0; i < kDTypeCount; ++i) {
    if (can_compensate(static_cast<DType>(i))) result.push_back(static_cast<DType>(i));
  }
  return result;
}

Tensor searched(const Tensor& weight, DType type, const std::vector<float>* importance = nullptr) {
  Tensor blocks = Tensor::empty(weight.shape(), type);
  quantize_rows(*block_type(type), weight.data<float>(), weight.rows(), weight.cols(),
                importance == nullptr ? nullptr : importance->data(), blocks.raw());
  return blocks;
}

// With correlated inputs the outputs are nearer than what the search gives, with and without importances.
TEST(BlockRounding, OutputsAreNearerThanTheSearchs) {
  const Tensor weight = test::random_matrix(24, 512, 8);
  const InputStatistics inputs = test::statistics_of(test::correlated_inputs(700, 512, 3));
  std::vector<float> importance(inputs.squares().begin(), inputs.squares().end());
  EXPECT_EQ(types().size(), 12u);
  for (const DType type : types()) {
    const auto error = [&](const Tensor& blocks) {
      return output_error(weight, blocks.to(DType::f32), inputs.products());
    };
    const double plain = std::min(error(searched(weight, type)), error(searched(weight, type, &importance)));
    for (const bool ordered : {false, true}) {
      const Tensor blocks = gptq_blocks(weight, inputs.products(), {type, ordered});
      EXPECT_EQ(blocks.dtype(), type);
      EXPECT_LT(error(blocks), 0.9 * plain) << name(type) << ordered;
    }
  }
}

// Where inputs are independent there is nothing to make up for: the search's scales with the nearest codes.
TEST(BlockRounding, IndependentInputsGiveTheSearchsScales) {
  const Tensor weight = test::random_matrix(5, 512, 9);
  Tensor products = Tensor::zeros({512, 512});
  for (int64_t i = 0; i < 512; ++i) products.data<float>()[i * 513] = 2;
  for (const DType type : types()) {
    const std::vector<float> plain = searched(weight, type).to(DType::f32).to_floats();
    const std::vector<float> ours = gptq_blocks(weight, products, {type}).to(DType::f32).to_floats();
    double error = 0, plain_error = 0;
    for (size_t i = 0; i < plain.size(); ++i) {
      const double w = weight.data<float>()[i];
      error += (ours[i] - w) * (ours[i] - w);
      plain_error += (plain[i] - w) * (plain[i] - w);
    }
    // The search's codes are for its scale before it was made longer.
    EXPECT_LE(error, plain_error * (1 + 1e-6)) << name(type);
    EXPECT_GE(error, 0.9 * plain_error) << name(type);
  }
}

TEST(BlockRounding, ZeroWeightsAndUnusedColumns) {
  Tensor weight = test::random_matrix(3, 256, 4);
  std::fill_n(weight.data<float>(), 256, 0.0f);
  for (const DType type : types()) {
    const std::vector<float> values =
        gptq_blocks(weight, Tensor::zeros({256, 256}), {type}).to(DType::f32).to_floats();
    for (size_t i = 0; i < 256; ++i) EXPECT_EQ(values[i], 0.0f) << name(type);
    for (size_t i = 256; i < values.size(); ++i) EXPECT_TRUE(std::isfinite(values[i])) << name(type);
  }
}

TEST(BlockRounding, RefusesWhatHasNoCodes) {
  const Tensor weight = test::random_matrix(2, 256, 4), products = Tensor::zeros({256, 256});
  EXPECT_EQ(nearest_compensated(DType::iq2_xs), DType::q2_k);
  EXPECT_EQ(nearest_compensated(DType::q6_k), DType::q6_k);
  EXPECT_EQ(test::error_of([&] { gptq_blocks(weight, products, {DType::iq3_s}, "q"); }),
            "[gptq] q: expected a type with a code for every weight, found iq3_s; the nearest is q3_k");
  EXPECT_EQ(test::error_of([&] {
              gptq_blocks(test::random_matrix(2, 64, 4), Tensor::zeros({64, 64}), {});
            }),
            "[gptq] matrix: expected rows of whole blocks of 256 values, found rows of 64");
  EXPECT_EQ(test::error_of([&] {
              gptq_blocks(weight, Tensor::zeros({64, 64}), {});
            }),
            "[gptq] matrix: expected sums of products of 256 inputs, found (64, 64)");
}

}  // namespace
}  // namespace qkv
