// Matrix products: every transposition, type, stride and accumulation against double, and the path for few rows.
#include "qkv/core/parallel.h"
#include "qkv/tensor/gemm.h"
#include "tests/tensor/tensor_testing.h"

namespace qkv::test {
namespace {

struct Stored {
  Tensor memory;
  Doubles values;  // (rows, cols) without the gaps
  int64_t stride;
};

// A random matrix whose stored rows are `gap` elements apart.
Stored stored_matrix(int64_t rows, int64_t cols, int64_t gap, DType type, uint64_t seed) {
  Stored result{random_tensor({rows, cols + gap}, seed, type), {}, cols + gap};
  result.values = reference::slice_cols(values_of(result.memory), rows, cols + gap, 0, cols);
  return result;
}

TEST(Gemm, EveryCombination) {
  for (const auto& [m, n, k] : std::vector<std::array<int64_t, 3>>{{1, 1, 1}, {1, 17, 33}, {17, 1, 5}, {3, 5, 1}, {31, 33, 65}, {64, 48, 32}}) {
    for (int flags = 0; flags < 32; ++flags) {
      const bool ta = flags & 1, tb = flags & 2, accumulate = flags & 4, low = flags & 8, low_out = flags & 16;
      if (low_out && !low) continue;
      const int64_t gap = flags % 3;
      SCOPED_TRACE(::testing::Message() << m << "x" << n << "x" << k << " ta " << ta << " tb " << tb << " accumulate " << accumulate
                                        << " bf16 " << low << " bf16 out " << low_out << " gap " << gap);
      const DType type = low ? DType::bf16 : DType::f32, out_type = low_out ? DType::bf16 : DType::f32;
      const Stored a = stored_matrix(ta ? k : m, ta ? m : k, gap, type, 1), b = stored_matrix(tb ? n : k, tb ? k : n, gap, type, 2);
      Stored c = stored_matrix(m, n, gap, out_type, 3);
      const Doubles around = values_of(c.memory);
      Doubles expected = reference::matmul(a.values, b.values, m, n, k, ta, tb);
      for (size_t i = 0; accumulate && i < expected.size(); ++i) expected[i] += c.values[i];
      gemm(m, n, k, {a.memory.raw(), type, a.stride, ta}, {b.memory.raw(), type, b.stride, tb}, c.memory.raw(), out_type, c.stride, accumulate);
      const Doubles after = values_of(c.memory);
      ASSERT_TRUE(close(reference::slice_cols(after, m, n + gap, 0, n), expected, low_out ? 0x1p-8 : 1e-5));
      if (gap > 0) {
        ASSERT_EQ(reference::slice_cols(after, m, n + gap, n, n + gap), reference::slice_cols(around, m, n + gap, n, n + gap))
            << "written between rows";
      }
    }
  }
}

TEST(Gemm, NothingToMultiply) {
  Tensor c = Tensor::full({2, 3}, 5.0f);
  const Tensor none = Tensor::empty({0});
  gemm(2, 3, 0, {none.raw(), DType::f32, 0, false}, {none.raw(), DType::f32, 3, false}, c.raw(), DType::f32, 3, true);
  EXPECT_EQ(values_of(c), Doubles(6, 5.0));
  gemm(0, 3, 4, {none.raw(), DType::f32, 4, false}, {none.raw(), DType::f32, 3, false}, c.raw(), DType::f32, 3, false);
  EXPECT_EQ(values_of(c), Doubles(6, 5.0));
  gemm(2, 3, 0, {none.raw(), DType::f32, 0, false}, {none.raw(), DType::f32, 3, false}, c.raw(), DType::f32, 3, false);
  EXPECT_EQ(values_of(c), Doubles(6, 0.0));
}

TEST(Gemm, TypesThatDoNotGoTogether) {
  Tensor a = random_tensor({2, 2}, 1), b = random_tensor({2, 2}, 2, DType::bf16), c = random_tensor({2, 2}, 3), low = c.to(DType::bf16);
  EXPECT_THROW(gemm(2, 2, 2, {a.raw(), DType::f32, 2, false}, {b.raw(), DType::bf16, 2, false}, c.raw(), DType::f32, 2, false), Error);
  EXPECT_THROW(gemm(2, 2, 2, {a.raw(), DType::f32, 2, false}, {a.raw(), DType::f32, 2, false}, low.raw(), DType::bf16, 2, false), Error);
  EXPECT_THROW(gemm(2, 2, 2, {a.raw(), DType::f16, 2, false}, {a.raw(), DType::f16, 2, false}, c.raw(), DType::f32, 2, false), Error);
  EXPECT_NE(gemm_library().find("oneDNN"), std::string::npos);
}

// More shapes than the cache of primitives holds, then the first again.
TEST(Gemm, TheCacheMayOverflow) {
  const Tensor a = random_tensor({1, 700}, 1), b = random_tensor({700, 2}, 2);
  for (int round = 0; round < 2; ++round) {
    for (int64_t k = 1; k <= 600; k += round == 0 ? 1 : 97) {
      float c[2];
      gemm(1, 2, k, {a.raw(), DType::f32, 700, false}, {b.raw(), DType::f32, 2, false}, c, DType::f32, 2, false);
      double expected = 0;
      for (int64_t i = 0; i < k; ++i) expected += static_cast<double>(a.data<float>()[i]) * static_cast<double>(b.data<float>()[2 * i + 1]);
      ASSERT_NEAR(static_cast<double>(c[1]), expected, 1e-4) << k;
    }
  }
}

TEST(Linear, FewRowsEqualTheGeneralProduct) {
  for (DType x_type : {DType::f32, DType::bf16}) {
    for (DType w_type : {DType::f32, DType::bf16}) {
      for (const auto& [k, n] : std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {33, 7}, {129, 260}, {64, 1001}}) {
        for (int64_t rows = 1; rows <= 6; ++rows) {
          SCOPED_TRACE(::testing::Message() << name(x_type) << " " << name(w_type) << " " << rows << "x" << k << "x" << n);
          const Tensor x = random_tensor({rows, k}, 1, x_type), w = random_tensor({n, k}, 2, w_type), bias = random_tensor({n}, 3);
          const Doubles expected = reference::linear(values_of(x), values_of(w), values_of(bias), rows, n, k);
          const double tolerance = x_type == DType::f32 ? 1e-5 : 0x1p-7;
          EXPECT_TRUE(close(ops::linear(x, w, bias), expected, tolerance)) << "off the tape";
          const Tensor on_tape = ops::linear(x.clone().set_requires_grad(true), w, bias);
          EXPECT_TRUE(close(on_tape, expected, tolerance)) << "on the tape";
        }
      }
    }
  }
}

TEST(Linear, AF16WeightIsWidened) {
  const Tensor x = random_tensor({7, 9}, 1), w = random_tensor({5, 9}, 2).to(DType::f16);
  EXPECT_TRUE(close(ops::linear(x, w), reference::linear(values_of(x), values_of(w), {}, 7, 5, 9), 1e-5));
}

TEST(Linear, AComputeCopyFollowsTheMaster) {
  Tensor w = random_leaf({5, 9}, 1);
  const Tensor x = random_tensor({7, 9}, 2, DType::bf16);
  const Tensor before = ops::linear(x, w);
  EXPECT_TRUE(w.compute_copy(DType::bf16).is_same(w.compute_copy(DType::bf16)));
  for (float& v : std::span<float>(w.data<float>(), 45)) v = -v;
  w.mark_modified();
  EXPECT_TRUE(close(ops::linear(x, w), reference::map<double>([](double v) { return -v; }, values_of(before)), 1e-9));
}

}  // namespace
}  // namespace qkv::test
