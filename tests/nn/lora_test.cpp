// Adapted weights: values and gradients against PEFT's in double precision and against plain references, on
// dense and on block-quantized bases.
#include "qkv/nn/lora.h"

#include "qkv/nn/layers.h"
#include "tests/support/golden_safetensors.h"
#include "tests/support/random_blocks.h"
#include "tests/support/test_paths.h"
#include "tests/tensor/tensor_testing.h"

namespace qkv::test {
namespace {

std::shared_ptr<AdapterControl> control(float scale = 1) {
  auto result = std::make_shared<AdapterControl>();
  result->scale = scale;
  return result;
}

std::unique_ptr<Weight> frozen(const Tensor& matrix) {
  return make_weight(matrix.detach());
}

// Of the reference's layer: (40, 48), rank 8, 35 rows of input.
class PeftLinear : public testing::TestWithParam<const char*> {
 protected:
  Tensor read(const std::string& name, Shape shape) { return tensor_of(file_.values(name), shape); }
  Doubles values(const std::string& name) { return file_.values(std::string(GetParam()) + "." + name); }
  GoldenSafetensors file_{golden("nn/lora_linear.safetensors")};
};

// Float against double: sums of 48 products each.
constexpr double kTolerance = 3e-6;

TEST_P(PeftLinear, ValuesGradientsAndMergedWeight) {
  const bool dora = std::string(GetParam()) == "dora", stabilized = std::string(GetParam()) == "rslora";
  const Tensor w = read("linear.weight", {40, 48}), bias = read("linear.bias", {40});
  LoraTensors tensors;
  tensors.a = read("linear.lora_A", {8, 48}).set_requires_grad(true);
  tensors.b = read("linear.lora_B", {40, 8}).set_requires_grad(true);
  tensors.scaling = stabilized ? 16 / std::sqrt(8.0f) : 2.0f;
  if (dora) tensors.magnitude = read("dora.magnitude", {40}).set_requires_grad(true);
  const LoraWeight weight(frozen(w), tensors, control());
  const Tensor x = read("linear.x", {35, 48}).set_requires_grad(true);
  const Tensor y = weight.apply(x, bias);
  EXPECT_TRUE(close(y, values("y"), kTolerance));
  const Tensor dy = read("linear.dy", {35, 40});
  backward(y, dy);
  EXPECT_TRUE(close(x.grad(), values("grad_x"), kTolerance));
  EXPECT_TRUE(close(weight.apply_backward_input(dy), values("grad_x"), kTolerance));
  EXPECT_TRUE(close(tensors.a.grad(), values("grad_lora_A"), kTolerance));
  EXPECT_TRUE(close(tensors.b.grad(), values("grad_lora_B"), kTolerance));
  if (dora) {
    EXPECT_TRUE(close(tensors.magnitude.grad(), values("grad_magnitude"), kTolerance));
    const Tensor squares = row_squares(w);
    Doubles norms;
    for (double square : values_of(squares)) norms.push_back(std::sqrt(square));
    EXPECT_TRUE(close(norms, values("magnitude_init"), kTolerance));
  }
  EXPECT_TRUE(close(weight.dequantize(), values("merged_weight"), kTolerance));
}

INSTANTIATE_TEST_SUITE_P(Kinds, PeftLinear, testing::Values("lora", "rslora", "dora"),
                         [](const auto& info) { return std::string(info.param); });

// y (T, N) = x W^T of an effective W.
Doubles times(const Doubles& x, const Doubles& w, int64_t rows, int64_t n, int64_t k) {
  return reference::linear(x, w, {}, rows, n, k);
}

constexpr int64_t kRows = 5, kOut = 6, kIn = 7, kRank = 3;

TEST(LoraWeightGradients, ByDifferencesInEveryType) {
  const Tensor w = random_tensor({kOut, kIn}, 1);
  OpCase c{"lora", {{{kRows, kIn}}, {{kRank, kIn}, false}, {{kOut, kRank}, false}}, {}, {}};
  c.op = [&](const std::vector<Tensor>& in) {
    return LoraWeight(frozen(w), {in[1], in[2], {}, {}, {}, {}, 0.7f}, control(0.5f)).apply(in[0], {});
  };
  c.reference = [&](const std::vector<Doubles>& in) {
    Doubles y = times(in[0], values_of(w), kRows, kOut, kIn);
    const Doubles low = times(in[0], in[1], kRows, kRank, kIn), delta = times(low, in[2], kRows, kOut, kRank);
    for (size_t i = 0; i < y.size(); ++i) y[i] += 0.35 * delta[i];
    return y;
  };
  c.bf16_tolerance = 0x1p-6;  // the parts are rounded before they are added
  for (Entry entry : {Entry::f32_leaf, Entry::bf16_leaf, Entry::bf16_inner}) check_op(c, entry);
}

// AdaLoRA's gates, and PiSSA's start taken off.
TEST(LoraWeightGradients, OfGatesAndBesideAStart) {
  const Tensor w = random_tensor({kOut, kIn}, 1), start_a = random_tensor({kRank, kIn}, 2),
               start_b = random_tensor({kOut, kRank}, 3);
  OpCase c{"gated lora",
           {{{kRows, kIn}}, {{kRank, kIn}, false}, {{kOut, kRank}, false}, {{kRank}, false}},
           {},
           {}};
  c.op = [&](const std::vector<Tensor>& in) {
    return LoraWeight(frozen(w), {in[1], in[2], {}, start_a, start_b, in[3], 0.7f}, control())
        .apply(in[0], {});
  };
  c.reference = [&](const std::vector<Doubles>& in) {
    Doubles y = times(in[0], values_of(w), kRows, kOut, kIn), low = times(in[0], in[1], kRows, kRank, kIn);
    for (size_t i = 0; i < low.size(); ++i) low[i] *= in[3][i % kRank];
    const Doubles delta = times(low, in[2], kRows, kOut, kRank),
                  start = times(times(in[0], values_of(start_a), kRows, kRank, kIn), values_of(start_b),
                                kRows, kOut, kRank);
    for (size_t i = 0; i < y.size(); ++i) y[i] += 0.7 * (delta[i] - start[i]);
    return y;
  };
  check_op(c, Entry::f32_leaf);
}

TEST(VeraWeightGradients, ByDifferences) {
  const Tensor w = random_tensor({kOut, kIn}, 1), a = random_tensor({kRank, kIn}, 2),
               b = random_tensor({kOut, kRank}, 3);
  OpCase c{"vera", {{{kRows, kIn}}, {{kRank}, false}, {{kOut}, false}}, {}, {}};
  c.op = [&](const std::vector<Tensor>& in) {
    return VeraWeight(frozen(w), {a, b, in[1], in[2]}, control()).apply(in[0], {});
  };
  c.reference = [&](const std::vector<Doubles>& in) {
    Doubles y = times(in[0], values_of(w), kRows, kOut, kIn),
            low = times(in[0], values_of(a), kRows, kRank, kIn);
    for (size_t i = 0; i < low.size(); ++i) low[i] *= in[1][i % kRank];
    const Doubles delta = times(low, values_of(b), kRows, kOut, kRank);
    for (size_t i = 0; i < y.size(); ++i) y[i] += in[2][i % kOut] * delta[i];
    return y;
  };
  check_op(c, Entry::f32_leaf);
}

TEST(Ia3WeightGradients, ByDifferences) {
  const Tensor w = random_tensor({kOut, kIn}, 1), bias = random_tensor({kOut}, 2);
  for (bool of_inputs : {false, true}) {
    for (float scale : {1.0f, 0.25f}) {
      OpCase c{"ia3", {{{kRows, kIn}}, {{of_inputs ? kIn : kOut}, false}}, {}, {}};
      c.op = [&](const std::vector<Tensor>& in) {
        return Ia3Weight(frozen(w), in[1], of_inputs, control(scale)).apply(in[0], bias);
      };
      c.reference = [&](const std::vector<Doubles>& in) {
        const auto factor = [&](size_t i) { return 1 + static_cast<double>(scale) * (in[1][i] - 1); };
        Doubles x = in[0];
        for (size_t i = 0; of_inputs && i < x.size(); ++i) x[i] *= factor(i % kIn);
        Doubles y = reference::linear(x, values_of(w), values_of(bias), kRows, kOut, kIn);
        for (size_t i = 0; !of_inputs && i < y.size(); ++i) y[i] *= factor(i % kOut);
        return y;
      };
      check_op(c, Entry::f32_leaf);
    }
  }
}

TEST(AdaptedWeight, OverBlocksEqualsOverTheirDenseMatrix) {
  const Tensor blocks = [] {
    Tensor t = Tensor::empty({24, 256}, DType::q4_k);
    const std::vector<uint8_t> bytes = random_blocks(BlockType::q4_k, 24, 3);
    std::memcpy(t.raw(), bytes.data(), bytes.size());
    return t;
  }();
  for (bool dora : {false, true}) {
    std::vector<Doubles> results;
    for (const Tensor& base : {blocks, blocks.to(DType::f32)}) {
      LoraTensors tensors{
          random_leaf({4, 256}, 1, DType::f32, 0.1), random_leaf({24, 4}, 2), {}, {}, {}, {}, 2};
      if (dora) tensors.magnitude = random_leaf({24}, 3);
      const LoraWeight weight(frozen(base), tensors, control());
      const Tensor x = random_leaf({20, 256}, 4);
      const Tensor y = weight.apply(x, {});
      backward(y, random_tensor({20, 24}, 5));
      results.push_back(values_of(y));
      for (const Tensor& t : {x, tensors.a, tensors.b}) results.push_back(values_of(t.grad()));
      results.push_back(values_of(weight.dequantize()));
    }
    const size_t half = results.size() / 2;
    for (size_t i = 0; i < half; ++i) EXPECT_TRUE(close(results[i], results[half + i], 1e-5)) << i;
  }
}

TEST(AdaptedWeight, SwitchedOffIsTheBaseToTheBit) {
  const Tensor w = random_tensor({24, 64}, 1), x = random_tensor({5, 64}, 2);
  const auto shared = control();
  const LoraWeight weight(
      frozen(w), {random_leaf({4, 64}, 3), random_leaf({24, 4}, 4), random_leaf({24}, 5), {}, {}, {}, 2},
      shared);
  const Tensor plain = DenseWeight(w).apply(x, {});
  EXPECT_FALSE(same_bits(weight.apply(x, {}), plain));
  shared->enabled = false;
  EXPECT_TRUE(same_bits(weight.apply(x, {}), plain));
  EXPECT_TRUE(same_bits(weight.dequantize(), w));
  shared->enabled = true;
  shared->scale = 0;
  EXPECT_TRUE(same_bits(weight.apply(x, {}), plain));
}

TEST(AdaptedWeight, OneOverTheOtherAddsUp) {
  const Tensor w = random_tensor({6, 8}, 1), x = random_tensor({5, 8}, 2);
  const LoraTensors first{random_tensor({2, 8}, 3), random_tensor({6, 2}, 4), {}, {}, {}, {}, 1},
      second{random_tensor({3, 8}, 5), random_tensor({6, 3}, 6), {}, {}, {}, {}, 0.5f};
  const auto one = std::make_unique<LoraWeight>(frozen(w), first, control());
  const Tensor merged = one->dequantize();
  const LoraWeight both(std::make_unique<LoraWeight>(frozen(w), first, control()), second, control());
  const LoraWeight over_merged(frozen(merged), second, control());
  EXPECT_TRUE(close(both.apply(x, {}), values_of(over_merged.apply(x, {})), 1e-5));
}

TEST(AdaptedWeight, DropoutMasksItsInputInTrainingOnly) {
  const Tensor w = Tensor::zeros({6, 64}), x = Tensor::full({8, 64}, 1.0f);
  const auto shared = control();
  shared->dropout = 0.5f;
  const LoraWeight weight(
      frozen(w),
      {Tensor::full({1, 64}, 1.0f).set_requires_grad(true), Tensor::full({6, 1}, 1.0f), {}, {}, {}, {}, 1},
      shared);
  const Tensor first = weight.apply(x, {});
  EXPECT_TRUE(same_bits(weight.apply(x, {}), first)) << "the mask is a function of the stream";
  shared->dropout_stream = 7;
  EXPECT_FALSE(same_bits(weight.apply(x, {}), first));
  const NoGrad off;
  EXPECT_EQ(weight.apply(x, {}).data<float>()[0], 64.0f);
}

TEST(AdaptedWeight, WrongShapesAreErrors) {
  const Tensor w = random_tensor({6, 8}, 1);
  EXPECT_NE(error_of([&] {
              LoraWeight(frozen(w), {random_tensor({2, 7}, 1), random_tensor({6, 2}, 1), {}, {}, {}, {}, 1},
                         control());
            }).find("lora_A: expected f32 (2, 8), found f32 (2, 7)"),
            std::string::npos);
  EXPECT_THROW(Ia3Weight(frozen(w), random_tensor({8}, 1), false, control()), Error);
  EXPECT_NO_THROW(Ia3Weight(frozen(w), random_tensor({8}, 1), true, control()));
}

}  // namespace
}  // namespace qkv::test
