// Weights as layers see them: block-quantized, half-precision and dense behave alike.
#include "qkv/nn/layers.h"
#include "qkv/tensor/ops.h"
#include "tests/support/random_blocks.h"
#include "tests/tensor/tensor_testing.h"

namespace qkv::test {
namespace {

Tensor random_block_tensor(BlockType type, Shape shape, uint64_t seed) {
  const std::vector<uint8_t> bytes = random_blocks(type, shape.elements() / block_length(type), seed);
  Tensor result = Tensor::empty(shape, *dtype_from_name(name_of(type)));
  std::memcpy(result.raw(), bytes.data(), bytes.size());
  return result;
}

TEST(MakeWeight, PicksByType) {
  const auto dense = make_weight(random_tensor({4, 32}, 1));
  EXPECT_NE(dynamic_cast<DenseWeight*>(dense.get()), nullptr);
  for (BlockType type : all_block_types()) {
    const Tensor blocks = random_block_tensor(type, {3, 256}, 2);
    const auto weight = make_weight(blocks);
    const auto* quantized = dynamic_cast<const QuantizedWeight*>(weight.get());
    ASSERT_NE(quantized, nullptr) << name_of(type);
    EXPECT_TRUE(quantized->blocks().same_storage(blocks)) << "the blocks were copied";
    EXPECT_EQ(weight->shape(), (Shape{3, 256}));
    EXPECT_TRUE(same_bits(weight->dequantize(), blocks.to(DType::f32)));
  }
  EXPECT_THROW(make_weight(Tensor::empty({4, 32}, DType::i8)), Error);
  EXPECT_THROW(make_weight(Tensor::empty({32})), Error);
  EXPECT_THROW(make_weight(Tensor::empty({256}, DType::q4_k)), Error);
  EXPECT_THROW(make_weight(Tensor::empty({2, 16}, DType::q8_0)), Error) << "half a block to a row";
}

TEST(QuantizedWeight, ALayerOverBlocksEqualsTheDenseLayer) {
  for (BlockType type : all_block_types()) {
    SCOPED_TRACE(name_of(type));
    const Tensor blocks = random_block_tensor(type, {24, 256}, 3);
    Linear dense(256, 24, true), quantized(256, 24, true);
    dense.set_weight(make_weight(blocks.to(DType::f32)));
    quantized.set_weight(make_weight(blocks));
    for (int64_t rows : {1, 4, 20}) {
      const Tensor x = random_leaf({rows, 256}, 4), y = random_leaf({rows, 256}, 4),
                   upstream = random_tensor({rows, 24}, 5);
      const Tensor expected = dense.forward(x), found = quantized.forward(y);
      EXPECT_TRUE(close(found, values_of(expected), 1e-5));
      backward(expected, upstream);
      backward(found, upstream);
      EXPECT_TRUE(close(y.grad(), values_of(x.grad()), 1e-5));
      EXPECT_TRUE(close(quantized.weight().apply_backward_input(upstream), values_of(x.grad()), 1e-5));
      const NoGrad off;
      EXPECT_TRUE(close(quantized.forward(y), values_of(expected), 1e-5));
    }
    int parameters = 0;
    quantized.visit("q.", [&](const std::string& name, Tensor& parameter) {
      ++parameters;
      if (name == "q.weight") {
        EXPECT_TRUE(parameter.same_storage(blocks));
      }
    });
    EXPECT_EQ(parameters, 2);
  }
}

TEST(DenseWeight, AHalfPrecisionMatrixIsUsedAsItIs) {
  const Tensor half = random_tensor({24, 70}, 3, DType::f16);
  const auto weight = make_weight(half);
  const NoGrad off;
  const uint64_t before = memory_use().current;
  for (int64_t rows : {1, 4, 20}) {
    const Tensor x = random_tensor({rows, 70}, 4);
    const Doubles expected = reference::linear(values_of(x), values_of(half), {}, rows, 24, 70);
    EXPECT_TRUE(close(weight->apply(x, {}), expected, 1e-5));
  }
  EXPECT_EQ(memory_use().current, before) << "a copy of the matrix is kept";
}

}  // namespace
}  // namespace qkv::test
