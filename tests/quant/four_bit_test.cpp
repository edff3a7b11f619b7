#include "qkv/quant/four_bit.h"

#include "qkv/quant/llm_int8.h"
#include "qkv/tensor/ops.h"
#include "tests/quant/quant_support.h"

namespace qkv {
namespace {

using test::QuantGolden;

TEST(FourBit, TablesAreBitsandbytesOwn) {
  const QuantGolden golden;
  test::expect_close(nf4_values(), golden.values("nf4.code"), 0, "nf4");
  test::expect_close(fp4_values(), golden.values("fp4.code"), 0, "fp4");
  test::expect_close(dynamic_values(), golden.values("dynamic8.code"), 0, "dynamic");
}

TEST(FourBit, CodesScalesAndNestedScalesAreTheReferences) {
  const QuantGolden golden;
  const Tensor weight = golden.matrix("bnb.weight");
  for (const std::string name : {"nf4", "fp4"}) {
    const auto& map = name == "nf4" ? nf4_values() : fp4_values();
    const BlockCodes blocks = quantize_blockwise(weight.span<float>(), kFourBitBlock, map);
    test::expect_close(pack_nibbles(blocks.codes), golden.values(name + ".packed"), 0, name + " codes");
    test::expect_close(blocks.scales, golden.values(name + ".absmax"), 0, name + " scales");
    const NestedScales nested = nest_scales(blocks.scales);
    test::expect_close(nested.codes, golden.values(name + ".dq_absmax_u8"), 0, name + " nested codes");
    // The mean is summed in another order; everything after it inherits its last bit.
    constexpr double kLastBits = 4 * 0x1p-24;
    test::expect_close(std::vector<float>{nested.offset}, golden.values(name + ".dq_offset"), kLastBits,
                       name + " offset");
    test::expect_close(nested.scales, golden.values(name + ".dq_absmax2"), kLastBits,
                       name + " nested scales");
    const std::vector<float> scales = nested.dequantize();
    test::expect_close(scales, golden.values(name + ".dq_absmax_dequant"), kLastBits,
                       name + " dequantized scales", 1);
    std::vector<float> values(blocks.codes.size());
    for (size_t i = 0; i < values.size(); ++i) values[i] = map[blocks.codes[i]] * scales[i / 64];
    test::expect_close(values, golden.values(name + ".dequant_doublequant"), kLastBits, name + " values", 1);
  }
}

TEST(FourBit, DynamicEightBitsAreTheReferences) {
  const QuantGolden golden;
  const BlockCodes blocks =
      quantize_blockwise(golden.matrix("bnb.weight").span<float>(), kDynamicBlock, dynamic_values());
  test::expect_close(blocks.codes, golden.values("dynamic8.q"), 0, "codes");
  test::expect_close(blocks.scales, golden.values("dynamic8.absmax"), 0, "scales");
}

TEST(FourBit, ShortAndEmptyBlocksAndTinyValues) {
  EXPECT_TRUE(quantize_blockwise({}, 64, nf4_values()).scales.empty());
  EXPECT_TRUE(nest_scales({}).codes.empty());
  const std::vector<float> values = {1e-45f, 0.0f, -1e-45f, 0.5f, -2.0f};
  const BlockCodes blocks = quantize_blockwise(values, 3, nf4_values());
  ASSERT_EQ(blocks.scales.size(), 2u);
  EXPECT_EQ(blocks.codes, (std::vector<uint8_t>{15, 7, 0, 10, 0}));
  EXPECT_EQ(pack_nibbles(blocks.codes), (std::vector<uint8_t>{0xF7, 0x0A, 0x00}));
  EXPECT_EQ(test::error_of([] { quantize_blockwise({}, 0, nf4_values()); }),
            "blocks: expected at least 1 value in each, found 0");
}

// |y - x W^T| <= sum over inputs of the two roundings, each at most half a step: (|x| s_w + |w| s_x) / 2 +
// s_x s_w / 4.
TEST(LlmInt8, OutliersAreTakenOutOfTheIntegerProduct) {
  Tensor x = test::random_matrix(5, 48, 3);
  x.data<float>()[2 * 48 + 7] = 60;
  x.data<float>()[4 * 48 + 30] = -25;
  const Tensor w = test::random_matrix(20, 48, 4, 0.2f);
  EXPECT_EQ(outlier_columns(x, 6), (std::vector<int64_t>{7, 30}));
  const Int8Weight weight(quantize_int8_rows(w));
  const Tensor bias = test::random_matrix(1, 20, 5).view({20});
  const Tensor y = weight.apply(x, bias), without = Int8Weight(quantize_int8_rows(w), 1e9f).apply(x, bias);
  const Tensor exact = ops::linear(x, w, bias), stored = ops::linear(x, weight.dequantize(), bias);
  const Int8Matrix rows = quantize_int8_rows(w), inputs = quantize_int8_rows(x, {7, 30});
  double error = 0, error_without = 0;
  for (int64_t t = 0; t < 5; ++t) {
    for (int64_t o = 0; o < 20; ++o) {
      const double step = inputs.scales.data<float>()[t] / 127;
      double bound = 1e-4;
      for (int64_t c = 0; c < 48; ++c)
        bound += step / 2 * (std::abs(w.data<float>()[o * 48 + c]) + rows.scales.data<float>()[o] / 254);
      const double difference = std::abs(y.data<float>()[t * 20 + o] - stored.data<float>()[t * 20 + o]);
      ASSERT_LE(difference, bound);
      error += std::abs(y.data<float>()[t * 20 + o] - exact.data<float>()[t * 20 + o]);
      error_without += std::abs(without.data<float>()[t * 20 + o] - exact.data<float>()[t * 20 + o]);
    }
  }
  EXPECT_LT(error, error_without);
}

TEST(LlmInt8, GradientsFlowToTheInput) {
  const Tensor w = test::random_matrix(6, 12, 4);
  const Int8Weight weight(quantize_int8_rows(w));
  Tensor x = test::random_matrix(3, 12, 5);
  x.set_requires_grad(true);
  backward(ops::sum(weight.apply(x, {})));
  const Tensor expected = weight.apply_backward_input(Tensor::full({3, 6}, 1));
  const std::vector<float> dx = expected.to_floats();
  test::expect_close(x.grad().to_floats(), {dx.begin(), dx.end()}, 1e-6, "dx", 1);
}

}  // namespace
}  // namespace qkv
