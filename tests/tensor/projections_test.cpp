// Products of one input with several weights: the same bits as linear() when exact, and within float rounding
// of products with the rounded input when not.
#include "qkv/tensor/projections.h"

#include "qkv/core/parallel.h"
#include "qkv/tensor/ops/rounded_rows.h"
#include "qkv/tensor/ops/row_streams.h"
#include "tests/support/random_blocks.h"
#include "tests/tensor/tensor_testing.h"

namespace qkv::test {
namespace {

Tensor random_weight(const char* type, Shape shape, uint64_t seed) {
  const DType dtype = *dtype_from_name(type);
  const auto block = block_type(dtype);
  if (!block) return random_tensor(shape, seed, DType::f32, 0.05).to(dtype);
  const std::vector<uint8_t> bytes = random_blocks(*block, shape.elements() / block_length(*block), seed);
  Tensor result = Tensor::empty(shape, dtype);
  std::memcpy(result.raw(), bytes.data(), bytes.size());
  return result;
}

// The input as bytes have it.
Tensor rounded(const Tensor& x) {
  const ops::detail::RoundedRows rows(x);
  Tensor result = Tensor::empty(x.shape());
  for (int64_t i = 0; i < x.elements(); ++i)
    result.data<float>()[i] = rows.rows().scales[i / 32] * rows.rows().codes[i];
  return result;
}

TEST(Projections, ExactOnesAreLinear) {
  const Tensor none, bias = random_tensor({70}, 1);
  const Tensor a = random_weight("q4_k", {70, 512}, 2), b = random_weight("f32", {33, 512}, 3),
               c = random_weight("bf16", {5, 512}, 4);
  const std::vector<ops::Projection> list = {{&a, &bias}, {&b, &none}, {&c, &none}};
  for (DType type : {DType::f32, DType::bf16}) {
    for (int64_t rows : {1, 3, 9, 40}) {
      const Tensor x = random_tensor({rows, 512}, 5).to(type);
      const std::vector<Tensor> y = ops::project(x, list, Activations::exact);
      EXPECT_TRUE(same_bits(y[0], ops::linear(x, a, bias)));
      EXPECT_TRUE(same_bits(y[1], ops::linear(x, b)));
      EXPECT_TRUE(same_bits(y[2], ops::linear(x, c)));
    }
  }
}

// Rows around the bounds of few rows and of the kernels' groups; weights of several types and heights at
// once, among them types without integer products, which stay exact.
TEST(Projections, RoundedOnesAreProductsWithTheRoundedInput) {
  const Tensor none, bias = random_tensor({70}, 1);
  for (const char* type : {"q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k",
                           "iq4_nl", "iq4_xs", "mxfp4", "iq2_xs"}) {
    const Tensor a = random_weight(type, {70, 512}, 2), b = random_weight("q6_k", {1, 512}, 3),
                 c = random_weight("f32", {33, 512}, 4);
    const Tensor d = random_weight(type, {1030, 512}, 6);
    const std::vector<ops::Projection> list = {{&a, &bias}, {&b, &none}, {&c, &none}, {&d, &none}};
    for (int64_t rows : {1, 2, 5, 8, 9, 17, 40}) {
      SCOPED_TRACE(::testing::Message() << type << " " << rows << " rows");
      const Tensor x = random_tensor({rows, 512}, 5);
      const std::vector<Tensor> y = ops::project(x, list, Activations::int8);
      const auto expect = [&](const Tensor& found, const Tensor& w, const Tensor& offset) {
        const Tensor in = ops::detail::takes_rounded_rows(w.dtype()) ? rounded(x) : x;
        const Doubles expected =
            reference::linear(values_of(in), values_of(w), offset.defined() ? values_of(offset) : Doubles{},
                              rows, w.dim(0), 512);
        EXPECT_TRUE(close(values_of(found), expected, 1e-4));
      };
      expect(y[0], a, bias);
      expect(y[1], b, none);
      expect(y[2], c, none);
      expect(y[3], d, none);
      const std::vector<Tensor> low = ops::project(rounded(x).to(DType::bf16), list, Activations::int8);
      EXPECT_EQ(low[0].dtype(), DType::bf16);
      EXPECT_TRUE(close(values_of(low[0]), values_of(y[0]), 0x1p-5));
    }
  }
}

TEST(Projections, WrongShapesAreErrors) {
  const Tensor none, w = random_weight("q8_0", {7, 64}, 1), bias = random_tensor({6}, 1);
  const ops::Projection good = {&w, &none}, wrong_bias = {&w, &bias};
  EXPECT_THROW(ops::project(random_tensor({2, 96}, 2), {&good, 1}, Activations::int8), Error);
  EXPECT_THROW(ops::project(random_tensor({2, 64}, 2), {&wrong_bias, 1}, Activations::int8), Error);
  EXPECT_EQ(ops::project(Tensor::empty({0, 64}), {&good, 1}, Activations::int8)[0].shape(), (Shape{0, 7}));
}

TEST(RowStreams, EveryRowOnce) {
  for (int64_t unit : {1, 4, 16}) {
    for (int64_t row_bytes : {1, 18, 1152, 4096, 100000}) {
      const std::vector<ops::detail::StoredRows> matrices = {{1, row_bytes}, {0, row_bytes}, {5000, row_bytes}, {37, row_bytes}, {259, 34}};
      std::vector<std::vector<int>> seen;
      for (const auto& matrix : matrices) seen.emplace_back(static_cast<size_t>(matrix.rows));
      ops::detail::stream_rows(matrices, unit, [&](size_t m, int64_t first, int64_t count, int part) {
        ASSERT_GT(count, 0);
        ASSERT_EQ(first % unit, 0);
        ASSERT_TRUE(part >= 0 && part < num_threads());
        for (int64_t r = first; r < first + count; ++r) ++seen[m].at(static_cast<size_t>(r));
      });
      for (const auto& rows : seen) {
        for (int times : rows) ASSERT_EQ(times, 1) << row_bytes << " in units of " << unit;
      }
    }
  }
}

}  // namespace
}  // namespace qkv::test
