// Products of blocks with activations rounded to bytes: every set's rounding bit for bit, its products
// against double precision for every type and odd shape.
#include "qkv/kernels/block_reference.h"
#include "tests/kernels/kernel_testing.h"
#include "tests/support/random_blocks.h"

namespace qkv::test {
namespace {

// Rounded rows and what they stand on.
struct Rounded {
  std::vector<int8_t> codes;
  std::vector<float> scales, sums16, sums32;
  std::vector<int32_t> code_sums16;
  int64_t rows, cols;

  Rounded(const BlockKernels& blocks, const std::vector<float>& x, int64_t n_rows, int64_t n_cols)
      : rows(n_rows), cols(n_cols) {
    const auto n = static_cast<size_t>(rows * cols);
    codes.resize(n);
    scales.resize(n / 32);
    sums32.resize(n / 32);
    sums16.resize(n / 16);
    code_sums16.resize(n / 16);
    blocks.round_activations(x.data(), rows * cols, codes.data(), scales.data(), sums16.data(), sums32.data(),
                             code_sums16.data());
  }
  Int8Rows view() const {
    return {codes.data(), scales.data(), sums16.data(), sums32.data(), code_sums16.data(), rows, cols};
  }
  double value(int64_t row, int64_t col) const {
    const auto i = static_cast<size_t>(row * cols + col);
    return static_cast<double>(scales[i / 32]) * codes[i];
  }
};

class BlockInt8Test : public ::testing::TestWithParam<Isa> {
 protected:
  const BlockKernels& blocks() { return kernels_for(GetParam()).blocks; }
};

TEST_P(BlockInt8Test, RoundingIsTheSameOnEverySet) {
  for (float magnitude : {1.0f, 0.0f, 1e-45f, 1e-38f, 1e-34f, 1e30f, 3.4e38f}) {
    auto x = stored<float>(normal_values(32 * 37, 3));
    for (float& v : x) v = std::clamp(v, -1.0f, 1.0f) * magnitude;
    const Rounded found(blocks(), x, 1, 32 * 37), expected(kernels_for(Isa::scalar).blocks, x, 1, 32 * 37);
    EXPECT_EQ(found.codes, expected.codes) << magnitude;
    EXPECT_TRUE(same_bits(found.scales, expected.scales)) << magnitude;
    EXPECT_TRUE(same_bits(found.sums16, expected.sums16)) << magnitude;
    EXPECT_TRUE(same_bits(found.sums32, expected.sums32)) << magnitude;
    EXPECT_EQ(found.code_sums16, expected.code_sums16) << magnitude;
  }
}

// Half a code is the most a value moves; halfway goes to even.
TEST_P(BlockInt8Test, RoundsToTheNearest) {
  const auto x = stored<float>(normal_values(32 * 50, 4));
  const Rounded rounded(blocks(), x, 1, 32 * 50);
  for (int64_t i = 0; i < 32 * 50; ++i) {
    const double scale = rounded.scales[static_cast<size_t>(i / 32)];
    ASSERT_NEAR(rounded.value(0, i), x[static_cast<size_t>(i)], scale * (0.5 + 127 * 0x1p-22)) << i;
    ASSERT_LE(std::abs(rounded.codes[static_cast<size_t>(i)]), 127);
  }
  std::vector<float> halves(32, 0.0f);
  halves[0] = 127.0f;
  halves[1] = 0.5f;
  halves[2] = 1.5f;
  halves[3] = -2.5f;
  const Rounded even(blocks(), halves, 1, 32);
  EXPECT_EQ(std::vector<int8_t>(even.codes.begin(), even.codes.begin() + 4),
            (std::vector<int8_t>{127, 0, 2, -2}));
}

// What is not a number stays none: its group's scale is NaN, its codes are zeros, other groups are as ever.
TEST_P(BlockInt8Test, NonFiniteValuesAreNotLost) {
  for (float bad :
       {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(), std::nanf("")}) {
    for (size_t at : {32u, 47u, 63u}) {
      std::vector<float> x(96, 1.0f);
      x[at] = bad;
      const Rounded rounded(blocks(), x, 1, 96);
      EXPECT_TRUE(std::isnan(rounded.scales[1]) && std::isnan(rounded.sums32[1]) &&
                  std::isnan(rounded.sums16[2]));
      EXPECT_EQ(rounded.codes[at], 0);
      EXPECT_EQ(rounded.codes[0], 127);
      EXPECT_EQ(rounded.codes[95], 127);
      for (BlockType type : all_block_types()) {
        if (blocks().int8_product[type] == nullptr || block_length(type) != 32) continue;
        const std::vector<uint8_t> bytes = random_blocks(type, 3, 1);
        alignas(64) std::byte scratch[int8_scratch_bytes(96)];
        float y = 0;
        blocks().int8_product[type](bytes.data(), rounded.view(), &y, 1, 1, scratch);
        EXPECT_TRUE(std::isnan(y)) << name_of(type);
      }
    }
  }
}

// Codes that are not below 128 as a set wants them are raised by 128 and lowered again by the sums of the
// activations: a term of a row is at most (|value| + 128 x the largest of its 16 values) x |activation|. Any
// order of n float additions errs by at most n 2^-24 of the sum of magnitudes; a row is summed in n < cols /
// 8 + 16 additions, and each term is rounded three times before.
TEST_P(BlockInt8Test, ProductsOfRoundedRows) {
  for (BlockType type : all_block_types()) {
    if (blocks().int8_product[type] == nullptr) continue;
    const int64_t length = block_length(type);
    for (const auto& [rows, cols] : std::vector<std::pair<int64_t, int64_t>>{
             {1, length}, {5, 3 * length}, {16, 9 * length}, {17, 2 * length}, {35, 512}}) {
      const GuardedBytes bytes(random_blocks(type, rows * cols / length, 12));
      std::vector<float> w(static_cast<size_t>(rows * cols));
      kernels_for(Isa::scalar).blocks.dequantize[type](bytes.data(), w.data(), rows * cols);
      for (int64_t x_rows : {1, 2, 3, 4, 5, 8, 9, 10, 16, 23}) {
        const Rounded x(blocks(), stored<float>(normal_values(x_rows * cols, 13)), x_rows, cols);
        const int64_t stride = rows + 3;
        std::vector<float> y(static_cast<size_t>((x_rows - 1) * stride + rows), -7.0f);
        std::vector<std::byte> memory(int8_scratch_bytes(cols) + 64);
        void* scratch = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64);
        blocks().int8_product[type](bytes.data(), x.view(), y.data(), rows, stride, scratch);
        for (int64_t i = 0; i < static_cast<int64_t>(y.size()); ++i) {
          const int64_t t = i / stride, r = i % stride;
          if (r >= rows) {
            ASSERT_EQ(y[static_cast<size_t>(i)], -7.0f) << "written between rows";
            continue;
          }
          double sum = 0, magnitudes = 0;
          for (int64_t first = 0; first < cols; first += 16) {
            double largest = 0, activations = 0;
            for (int64_t c = first; c < first + 16; ++c) {
              const auto weight = static_cast<double>(w[static_cast<size_t>(r * cols + c)]);
              sum += weight * x.value(t, c);
              magnitudes += std::abs(weight * x.value(t, c));
              largest = std::max(largest, std::abs(weight));
              activations += std::abs(x.value(t, c));
            }
            magnitudes += 128 * largest * activations;
          }
          ASSERT_NEAR(static_cast<double>(y[static_cast<size_t>(i)]), sum,
                      (static_cast<double>(cols) / 8 + 19) * 0x1p-24 * magnitudes)
              << name_of(type) << " row " << r << " of token " << t << ": " << rows << "x" << cols << ", "
              << x_rows << " tokens";
        }
      }
    }
  }
}

// Every byte of codes set to `byte`, scales as they were.
std::vector<uint8_t> with_codes(BlockType type, std::vector<uint8_t> bytes, uint8_t byte) {
  for (size_t at = 0; at < bytes.size(); at += static_cast<size_t>(block_bytes(type))) {
    with_block(type, [&](auto* pointer) {
      std::remove_pointer_t<decltype(pointer)> block;
      std::memcpy(&block, bytes.data() + at, sizeof(block));
      if constexpr (requires { block.qs; }) std::memset(block.qs, byte, sizeof(block.qs));
      if constexpr (requires { block.qh; }) std::memset(block.qh, byte, sizeof(block.qh));
      if constexpr (requires { block.ql; }) std::memset(block.ql, byte, sizeof(block.ql));
      std::memcpy(bytes.data() + at, &block, sizeof(block));
    });
  }
  return bytes;
}

// Codes and activations at their extremes overflow no intermediate type, for one token and for one among
// twelve.
TEST_P(BlockInt8Test, ExtremeCodesDoNotOverflow) {
  const int64_t rows = 16, cols = 512, tokens = 12;
  for (BlockType type : {BlockType::q8_0, BlockType::q4_1, BlockType::q6_k, BlockType::q5_k}) {
    if (blocks().int8_product[type] == nullptr) continue;
    const std::vector<uint8_t> scales = random_blocks(type, rows * cols / block_length(type), 9);
    std::vector<std::vector<uint8_t>> patterns;
    std::vector<std::vector<float>> values;
    double largest = 0;
    for (uint8_t byte : {0x00, 0x7F, 0x80, 0xFF}) {
      patterns.push_back(with_codes(type, scales, byte));
      values.emplace_back(static_cast<size_t>(rows * cols));
      kernels_for(Isa::scalar)
          .blocks.dequantize[type](patterns.back().data(), values.back().data(), rows * cols);
      for (float v : values.back()) largest = std::max(largest, static_cast<double>(std::abs(v)));
    }
    const Rounded all(blocks(), std::vector<float>(static_cast<size_t>(tokens * cols), -127.0f), tokens,
                      cols);
    const Rounded one(blocks(), std::vector<float>(static_cast<size_t>(cols), -127.0f), 1, cols);
    std::vector<std::byte> memory(int8_scratch_bytes(cols) + 64);
    void* scratch = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64);
    for (size_t p = 0; p < patterns.size(); ++p) {
      std::vector<float> y(static_cast<size_t>(tokens * rows)), alone(static_cast<size_t>(rows));
      blocks().int8_product[type](patterns[p].data(), all.view(), y.data(), rows, rows, scratch);
      blocks().int8_product[type](patterns[p].data(), one.view(), alone.data(), rows, rows, scratch);
      for (int64_t r = 0; r < rows; ++r) {
        double sum = 0;
        for (int64_t c = 0; c < cols; ++c)
          sum += -127.0 * static_cast<double>(values[p][static_cast<size_t>(r * cols + c)]);
        const double bound = (cols / 8 + 19) * 0x1p-24 * 129 * 127 * largest * cols;
        EXPECT_NEAR(static_cast<double>(alone[static_cast<size_t>(r)]), sum, bound)
            << name_of(type) << " pattern " << p;
        EXPECT_NEAR(static_cast<double>(y[static_cast<size_t>((tokens - 1) * rows + r)]), sum, bound)
            << name_of(type) << " pattern " << p;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isa, BlockInt8Test, ::testing::ValuesIn(available_isas()),
                         [](const auto& info) { return std::string(isa_name(info.param)); });

// The types that models are quantized to in practice have integer products wherever there are integer dot
// products.
TEST(BlockInt8, TheCommonTypesHaveIntegerProducts) {
  const auto& isas = available_isas();
  if (std::find(isas.begin(), isas.end(), Isa::avx2) == isas.end()) GTEST_SKIP() << "needs AVX2";
  for (BlockType type : {BlockType::q4_0, BlockType::q4_1, BlockType::q5_0, BlockType::q5_1, BlockType::q8_0,
                         BlockType::q2_k, BlockType::q3_k, BlockType::q4_k, BlockType::q5_k, BlockType::q6_k,
                         BlockType::iq4_nl, BlockType::iq4_xs, BlockType::mxfp4}) {
    EXPECT_NE(kernels_for(isas.back()).blocks.int8_product[type], nullptr) << name_of(type);
  }
}

}  // namespace
}  // namespace qkv::test
