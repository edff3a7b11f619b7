// Tensors of block types: conversion, rows, embedding, and products that widen them on the way.
#include "tests/support/random_blocks.h"
#include "tests/tensor/tensor_testing.h"

namespace qkv::test {
namespace {

DType dtype_of(BlockType type) {
  return *dtype_from_name(name_of(type));
}

Tensor random_block_tensor(BlockType type, Shape shape, uint64_t seed) {
  const std::vector<uint8_t> bytes = random_blocks(type, shape.elements() / block_length(type), seed);
  Tensor result = Tensor::empty(shape, dtype_of(type));
  std::memcpy(result.raw(), bytes.data(), bytes.size());
  return result;
}

TEST(BlockTensor, EveryTypeHasItsKernel) {
  for (BlockType type : all_block_types()) {
    EXPECT_EQ(block_type(dtype_of(type)), type);
    EXPECT_EQ(traits(dtype_of(type)).block_length, block_length(type));
    EXPECT_NE(kernels().blocks.dequantize[type], nullptr) << name_of(type);
  }
  EXPECT_FALSE(block_type(DType::f32) || block_type(DType::nf4) || block_type(DType::boolean));
}

TEST(BlockTensor, ConvertsToEveryFloatingType) {
  for (BlockType type : all_block_types()) {
    SCOPED_TRACE(name_of(type));
    const Tensor blocks = random_block_tensor(type, {150, 256}, 1);  // more than one thread's part
    std::vector<float> expected(150 * 256);
    kernels_for(Isa::scalar).blocks.dequantize[type](blocks.raw(), expected.data(), 150 * 256);
    const Tensor wide = blocks.to(DType::f32);
    EXPECT_TRUE(same_bits(wide, Tensor::from(expected, {150, 256})));
    EXPECT_EQ(blocks.to_floats(), expected);
    for (DType low : {DType::bf16, DType::f16, DType::f64})
      EXPECT_TRUE(same_bits(blocks.to(low), wide.to(low))) << name(low);
    EXPECT_TRUE(same_bits(blocks.row_view(3, 77).to(DType::f32), wide.row_view(3, 77).clone()));
  }
}

TEST(BlockTensor, RoundingToNearest) {
  const Tensor x = random_tensor({7, 256}, 1);
  for (BlockType type : all_block_types()) {
    SCOPED_TRACE(name_of(type));
    if (kernels().blocks.quantize[type] == nullptr) {
      EXPECT_THROW(x.to(dtype_of(type)), Error);
      continue;
    }
    const Tensor blocks = x.to(dtype_of(type));
    EXPECT_EQ(blocks.bytes(),
              7 * 256 / static_cast<uint64_t>(block_length(type)) * static_cast<uint64_t>(block_bytes(type)));
    EXPECT_TRUE(
        same_bits(x.to(DType::bf16).to(dtype_of(type)), x.to(DType::bf16).to(DType::f32).to(dtype_of(type))));
  }
}

TEST(BlockTensor, EmbeddingTakesOnlyTheRowsAskedFor) {
  const std::vector<int32_t> ids = {4, 0, 4, 18};
  for (BlockType type : all_block_types()) {
    SCOPED_TRACE(name_of(type));
    const Tensor table = random_block_tensor(type, {19, 512}, 2);
    for (DType out : {DType::f32, DType::bf16}) {
      EXPECT_TRUE(same_bits(ops::embedding(ids, table, out),
                            ops::embedding(ids, table.to(DType::f32), DType::f32).to(out)));
    }
  }
  const Tensor half = random_tensor({19, 5}, 3, DType::f16);
  EXPECT_TRUE(same_bits(ops::embedding(ids, half), ops::embedding(ids, half.to(DType::f32))));
  EXPECT_TRUE(same_bits(ops::embedding(ids, half, DType::bf16),
                        ops::embedding(ids, half.to(DType::bf16), DType::bf16)));
}

// Types a weight may have without the general product knowing them.
std::vector<std::pair<std::string, Tensor>> stored_weights(int64_t n, int64_t k) {
  std::vector<std::pair<std::string, Tensor>> list;
  for (BlockType type : all_block_types())
    list.emplace_back(name_of(type), random_block_tensor(type, {n, k}, 5));
  for (DType type : {DType::f16, DType::bf16, DType::f32}) {
    list.emplace_back(std::string(name(type)), random_tensor({n, k}, 6, DType::f32, 0.05).to(type));
  }
  return list;
}

// Rows around the bound between matrix x vector and general products; 4200 outputs are two panels of 1024 x
// 1024 floats and more.
TEST(BlockTensor, LinearEqualsTheWidenedWeight) {
  for (const auto& [n, k] : std::vector<std::pair<int64_t, int64_t>>{{37, 512}, {2100, 1024}}) {
    const Tensor bias = random_tensor({n}, 8);
    for (const auto& [what, w] : stored_weights(n, k)) {
      if (n > 1000 && what != "q4_k" && what != "q5_0" && what != "f16") continue;
      const Tensor wide = w.to(DType::f32);
      for (int64_t rows : {1, 3, 5, 9, 40}) {
        SCOPED_TRACE(::testing::Message() << what << " " << rows << " rows, " << n << "x" << k);
        const Tensor x = random_tensor({rows, k}, 7);
        const Doubles expected =
            reference::linear(values_of(x), values_of(wide), values_of(bias), rows, n, k);
        EXPECT_TRUE(close(ops::linear(x, w, bias), expected, 1e-5));
        // bf16 activations are exact in f32; one or two roundings to bf16 remain, of the weight and of the
        // result.
        const Tensor low = x.to(DType::bf16);
        const Doubles rounded =
            reference::linear(values_of(low), values_of(wide), values_of(bias), rows, n, k);
        EXPECT_TRUE(close(ops::linear(low, w, bias), rounded, 0x1p-7)) << "bf16";
      }
    }
  }
}

TEST(BlockTensor, TheGradientFlowsToTheInput) {
  for (const auto& [n, k] : std::vector<std::pair<int64_t, int64_t>>{{37, 512}, {2100, 1024}}) {
    for (const auto& [what, w] : stored_weights(n, k)) {
      if (n > 1000 && what != "q4_k" && what != "q5_0" && what != "f16") continue;
      SCOPED_TRACE(::testing::Message() << what << " " << n << "x" << k);
      const Tensor bias = random_leaf({n}, 8), x = random_leaf({6, k}, 9),
                   upstream = random_tensor({6, n}, 10);
      backward(ops::linear(x, w, bias), upstream);
      const Doubles expected = reference::matmul(values_of(upstream), values_of(w), 6, k, n, false, false);
      EXPECT_TRUE(close(x.grad(), expected, 1e-5));
      EXPECT_TRUE(bias.grad().defined());
      EXPECT_TRUE(close(ops::linear_backward_input(upstream, w), expected, 1e-5));
      // A bf16 activation inside the graph, used twice: the gradient is added to.
      const Tensor leaf = random_leaf({6, k}, 9);
      const Tensor low = ops::cast(leaf, DType::bf16);
      const Tensor low_upstream = upstream.to(DType::bf16);
      backward(ops::add(ops::linear(low, w), ops::linear(low, w)), low_upstream);
      Doubles twice = reference::matmul(values_of(low_upstream), values_of(w), 6, k, n, false, false);
      for (double& v : twice) v *= 2;
      EXPECT_TRUE(close(leaf.grad(), twice, 0x1p-6)) << "bf16";
    }
  }
}

TEST(BlockTensor, VocabularyLosses) {
  const Tensor h = random_tensor({9, 256}, 1);
  const std::vector<int32_t> targets = {1, 2, 3, ops::kIgnore, 5, 6, 7, 8, 40};
  for (BlockType type : {BlockType::q4_0, BlockType::q6_k}) {
    const Tensor w = random_block_tensor(type, {41, 256}, 2), wide = w.to(DType::f32);
    EXPECT_NEAR(ops::linear_cross_entropy(h, w, targets).item(),
                ops::linear_cross_entropy(h, wide, targets).item(), 1e-4);
    const Tensor a = random_leaf({9, 256}, 1), b = random_leaf({9, 256}, 1);
    backward(ops::sum(ops::linear_log_probs(a, w, targets)));
    backward(ops::sum(ops::linear_log_probs(b, wide, targets)));
    EXPECT_TRUE(close(a.grad(), values_of(b.grad()), 1e-5));
  }
}

TEST(BlockTensor, AWeightOfBlocksIsNotTrained) {
  Tensor w = random_block_tensor(BlockType::q8_0, {4, 32}, 1);
  w.set_requires_grad(true);
  EXPECT_THROW(ops::linear(random_tensor({2, 32}, 2), w), Error);
}

}  // namespace
}  // namespace qkv::test
