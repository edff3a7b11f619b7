// Elementwise kernels, bias, rope, dropout and matrix x vector on every instruction set.
#include "tests/kernels/kernel_testing.h"

namespace qkv::test {
namespace {

template <typename T>
class ElementwiseKernels : public TypedKernelTest<T> {};
TYPED_TEST_SUITE(ElementwiseKernels, StorageTypes);

TYPED_TEST(ElementwiseKernels, ArithmeticIsExactAndWorksInPlace) {
  using T = TypeParam;
  for (int64_t n : sizes()) {
    SCOPED_TRACE(n);
    const auto a = stored<T>(normal_values(n, 1)), b = stored<T>(normal_values(n, 2));
    std::vector<T> sum, product, scaled;
    for (size_t i = 0; i < a.size(); ++i) {  // one rounding in float, one to the storage type
      sum.push_back(from_float<T>(to_float(a[i]) + to_float(b[i])));
      product.push_back(from_float<T>(to_float(a[i]) * to_float(b[i])));
      scaled.push_back(from_float<T>(to_float(a[i]) * -1.7f));
    }
    this->for_each_isa([&](const TypedKernels<T>& k) {
      std::vector<T> y(a.size());
      k.add(a.data(), b.data(), y.data(), n);
      ASSERT_TRUE(same_bits(y, sum));
      k.multiply(a.data(), b.data(), y.data(), n);
      ASSERT_TRUE(same_bits(y, product));
      k.scale(a.data(), -1.7f, y.data(), n);
      ASSERT_TRUE(same_bits(y, scaled));
      y = a;
      k.add(y.data(), b.data(), y.data(), n);
      ASSERT_TRUE(same_bits(y, sum));
      y = b;
      k.add(a.data(), y.data(), y.data(), n);
      ASSERT_TRUE(same_bits(y, sum));
      y = a;
      k.multiply(y.data(), b.data(), y.data(), n);
      ASSERT_TRUE(same_bits(y, product));
      y = a;
      k.scale(y.data(), -1.7f, y.data(), n);
      ASSERT_TRUE(same_bits(y, scaled));
    });
  }
}

TYPED_TEST(ElementwiseKernels, BiasAndItsGradient) {
  using T = TypeParam;
  for (int64_t cols : sizes()) {
    const int64_t rows = cols > 1000 ? 2 : 5;
    SCOPED_TRACE(cols);
    const auto x = stored<T>(normal_values(rows * cols, 3));
    const auto bias = stored<float>(normal_values(cols, 4)), start = stored<float>(normal_values(cols, 5));
    std::vector<T> expected(x.size());
    for (size_t i = 0; i < x.size(); ++i) expected[i] = from_float<T>(to_float(x[i]) + bias[i % static_cast<size_t>(cols)]);
    Doubles sums = reference::sum_rows(widened(x), rows, cols);
    for (size_t i = 0; i < sums.size(); ++i) sums[i] += static_cast<double>(start[i]);
    this->for_each_isa([&](const TypedKernels<T>& k) {
      std::vector<T> y = x;
      k.add_bias(y.data(), bias.data(), y.data(), rows, cols);
      ASSERT_TRUE(same_bits(y, expected));
      std::vector<float> total = start;
      k.sum_rows(x.data(), total.data(), rows, cols);
      ASSERT_TRUE(near(widened(total), sums, 1e-6, 1e-6));
    });
  }
}

TYPED_TEST(ElementwiseKernels, Rope) {
  using T = TypeParam;
  const int64_t rows = 3, heads = 2, gap = 5;
  for (const auto& [head_dim, rotary_dim] : std::vector<std::pair<int64_t, int64_t>>{
           {2, 2}, {6, 6}, {16, 16}, {24, 8}, {34, 34}, {66, 66}, {64, 64}, {80, 20}, {128, 128}, {256, 256}, {10, 0}}) {
    for (bool interleaved : {false, true}) {
      SCOPED_TRACE(::testing::Message() << head_dim << " " << rotary_dim << " interleaved " << interleaved);
      const int64_t width = heads * head_dim, stride = width + gap, half = rotary_dim / 2;
      const Doubles angle = normal_values(std::max<int64_t>(1, rows * half), 6);
      const Doubles cos = rounded<float>(reference::map<double>([](double v) { return std::cos(v); }, angle));
      const Doubles sin = rounded<float>(reference::map<double>([](double v) { return std::sin(v); }, angle));
      const auto cos_f = stored<float>(cos), sin_f = stored<float>(sin);
      const auto x = stored<T>(normal_values(rows * stride, 7));
      Doubles packed;
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < width; ++c) packed.push_back(static_cast<double>(to_float(x[reference::at(r, stride, c)])));
      }
      for (float direction : {1.0f, -1.0f}) {
        const Doubles y = reference::rope(packed, cos, sin, rows, heads, head_dim, rotary_dim, interleaved, static_cast<double>(direction));
        this->for_each_isa([&](const TypedKernels<T>& k) {
          std::vector<T> out(static_cast<size_t>(rows * width));
          k.rope(x.data(), out.data(), cos_f.data(), sin_f.data(), rows, heads, head_dim, rotary_dim, stride, width, interleaved, direction);
          ASSERT_TRUE(near(widened(out), y, 2 * kRounding<T>, 3e-7));
          std::vector<T> in_place = x;
          k.rope(in_place.data(), in_place.data(), cos_f.data(), sin_f.data(), rows, heads, head_dim, rotary_dim, stride, stride,
                 interleaved, direction);
          for (int64_t r = 0; r < rows; ++r) {
            ASSERT_EQ(0, std::memcmp(&in_place[reference::at(r, stride, 0)], &out[reference::at(r, width, 0)],
                                     static_cast<size_t>(width) * sizeof(T)));
            ASSERT_EQ(0, std::memcmp(&in_place[reference::at(r, stride, width)], &x[reference::at(r, stride, width)],
                                     static_cast<size_t>(gap) * sizeof(T)))
                << "written between rows";
          }
        });
      }
    }
  }
}

TYPED_TEST(ElementwiseKernels, DropoutIsAFunctionOfTheIndex) {
  using T = TypeParam;
  const float p = 0.3f;
  const int64_t total = 4099;
  const auto x = stored<T>(normal_values(total, 8));
  std::vector<T> expected;
  for (size_t i = 0; i < x.size(); ++i) {
    const bool kept = reference::dropout_factor(p, 9, 10, i) != 0;
    expected.push_back(from_float<T>(kept ? to_float(x[i]) * (1.0f / (1.0f - p)) : 0.0f));
  }
  this->for_each_isa([&](const TypedKernels<T>& k) {
    for (int64_t n : sizes()) {
      std::vector<T> y(x.begin(), x.begin() + n);
      k.dropout(y.data(), y.data(), n, p, 9, 10, 0);
      ASSERT_TRUE(same_bits(y, std::vector<T>(expected.begin(), expected.begin() + n))) << n;
    }
    std::vector<T> y(x.size());  // in parts that start at multiples of four
    for (int64_t begin = 0; begin < total; begin += 36) {
      k.dropout(x.data() + begin, y.data() + begin, std::min<int64_t>(36, total - begin), p, 9, 10, static_cast<uint64_t>(begin));
    }
    ASSERT_TRUE(same_bits(y, expected));
  });
}

TYPED_TEST(ElementwiseKernels, MatrixTimesVector) {
  using T = TypeParam;
  for (int64_t cols : sizes()) {
    for (int64_t rows : cols < 40 ? std::vector<int64_t>{1, 2, 3, 4, 5, 7, 8, 9} : std::vector<int64_t>{6}) {
      SCOPED_TRACE(::testing::Message() << rows << " x " << cols);
      const auto w = stored<T>(normal_values(rows * cols, 11));
      const auto x = stored<float>(normal_values(cols, 12));
      const Doubles expected = reference::matmul(widened(w), widened(x), rows, 1, cols);
      this->for_each_isa([&](const TypedKernels<T>& k) {
        std::vector<float> y(static_cast<size_t>(rows));
        k.matvec(w.data(), x.data(), y.data(), rows, cols);
        ASSERT_TRUE(near(widened(y), expected, 1e-6, 2e-6 + 0x1p-24 * static_cast<double>(cols)));
      });
    }
  }
}

TEST(FloatKernels, AxpyAndSumOfSquares) {
  for (int64_t n : {int64_t{0}, int64_t{1}, int64_t{7}, int64_t{33}, int64_t{70}, int64_t{4099}, int64_t{100003}}) {
    const auto x = stored<float>(normal_values(n, 13)), y = stored<float>(normal_values(n, 14));
    Doubles expected;
    double squares = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      expected.push_back(static_cast<double>(y[i]) + static_cast<double>(0.7f) * static_cast<double>(x[i]));
      squares += static_cast<double>(x[i]) * static_cast<double>(x[i]);
    }
    for (Isa isa : available_isas()) {
      SCOPED_TRACE(isa_name(isa));
      std::vector<float> out = y;
      kernels_for(isa).axpy(0.7f, x.data(), out.data(), n);
      ASSERT_TRUE(near(widened(out), expected, 1e-6, 2e-7));
      ASSERT_NEAR(kernels_for(isa).sum_of_squares(x.data(), n), squares, 1e-6 * squares);
    }
  }
}

TEST(FloatKernels, BurstsCountTheirOperations) {
  for (Isa isa : available_isas()) {
    float f = NAN;
    int32_t i = -1;
    const double flops = kernels_for(isa).fma_burst(1000, &f), again = kernels_for(isa).fma_burst(2000, &f);
    EXPECT_GT(flops, 0);
    EXPECT_EQ(again, 2 * flops);
    EXPECT_TRUE(std::isfinite(f));
    EXPECT_EQ(kernels_for(isa).int8_burst(2000, &i), 2 * kernels_for(isa).int8_burst(1000, &i));
  }
}

TEST(Dispatch, ScalarIsAlwaysThereAndNothingIsMissing) {
  const auto isas = available_isas();
  ASSERT_FALSE(isas.empty());
  EXPECT_EQ(isas.front(), Isa::scalar);
  EXPECT_NE(std::find(isas.begin(), isas.end(), active_isa()), isas.end());
  for (Isa isa : isas) {
    std::array<void*, sizeof(Kernels) / sizeof(void*)> entries;
    Kernels table = kernels_for(isa);
    // Block types without plain rounding; blocks_test.cpp says which.
    for (auto& quantize : table.blocks.quantize.entries) {
      if (quantize == nullptr) quantize = kernels().blocks.quantize[BlockType::q8_0];
    }
    // Block types without integer products, and sets without them; block_int8_test.cpp says which.
    for (auto& product : table.blocks.int8_product.entries) {
      if (product == nullptr) product = [](const void*, const Int8Rows&, float*, int64_t, int64_t, void*) {};
    }
    std::memcpy(entries.data(), static_cast<const void*>(&table), sizeof(Kernels));
    for (void* entry : entries) EXPECT_NE(entry, nullptr) << isa_name(isa);
  }
}

}  // namespace
}  // namespace qkv::test
