// Block types: against ggml's values and roundings (tests/golden/blocks, written by
// tests/interop/ggml_blocks.cpp), every instruction set against the plain kernels, and the codebooks against
// a checksum.
#include <set>

#include "qkv/kernels/block_codebooks.h"
#include "qkv/kernels/block_reference.h"
#include "tests/kernels/kernel_testing.h"
#include "tests/support/golden_safetensors.h"
#include "tests/support/random_blocks.h"
#include "tests/support/test_paths.h"

namespace qkv::test {
namespace {

template <typename T>
std::vector<T> golden_values(const GoldenSafetensors& file, const std::string& name) {
  const Doubles values = file.values(name);
  return {values.begin(), values.end()};
}

const GoldenSafetensors& golden_blocks() {
  static const GoldenSafetensors file(golden("blocks/blocks.safetensors"));
  return file;
}

class BlockTest : public ::testing::TestWithParam<Isa> {
 protected:
  const BlockKernels& blocks() { return kernels_for(GetParam()).blocks; }
};

TEST_P(BlockTest, DequantizationEqualsGgml) {
  for (BlockType type : all_block_types()) {
    if (type == BlockType::q8_1) continue;  // ggml never dequantizes it
    const std::string name = name_of(type);
    const auto bytes = golden_values<uint8_t>(golden_blocks(), name + ".blocks");
    const auto expected = golden_values<float>(golden_blocks(), name + ".values");
    std::vector<float> found(expected.size());
    blocks().dequantize[type](bytes.data(), found.data(), static_cast<int64_t>(found.size()));
    EXPECT_TRUE(same_bits(found, expected)) << name;
  }
}

TEST_P(BlockTest, PlainRoundingEqualsGgml) {
  const auto x = golden_values<float>(golden_blocks(), "values_to_round");
  std::set<std::string> rounded;
  for (BlockType type : all_block_types()) {
    if (blocks().quantize[type] == nullptr) continue;
    rounded.insert(name_of(type));
    const auto expected = golden_values<uint8_t>(golden_blocks(), std::string(name_of(type)) + ".rounded");
    std::vector<uint8_t> found(expected.size());
    blocks().quantize[type](x.data(), found.data(), static_cast<int64_t>(x.size()));
    EXPECT_TRUE(same_bits(found, expected)) << name_of(type);
  }
  EXPECT_EQ(rounded, (std::set<std::string>{"q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q8_1", "q8_k", "iq4_nl",
                                            "mxfp4", "tq1_0", "tq2_0"}));
}

TEST_P(BlockTest, EqualsThePlainKernels) {
  const BlockKernels& plain = kernels_for(Isa::scalar).blocks;
  for (BlockType type : all_block_types()) {
    for (int64_t count : {1, 2, 3, 100}) {
      SCOPED_TRACE(::testing::Message() << name_of(type) << " " << count);
      const GuardedBytes bytes(random_blocks(type, count, 11));
      const int64_t n = count * block_length(type);
      std::vector<float> expected(static_cast<size_t>(n)), found(expected.size());
      plain.dequantize[type](bytes.data(), expected.data(), n);
      blocks().dequantize[type](bytes.data(), found.data(), n);
      ASSERT_TRUE(same_bits(found, expected));
    }
  }
}

// Any bytes are a block: scales may be infinite or NaN, and then so are the values, on every set alike.
TEST_P(BlockTest, AnyBytesAreAccepted) {
  const BlockKernels& plain = kernels_for(Isa::scalar).blocks;
  Rng rng(5);
  for (BlockType type : all_block_types()) {
    std::vector<uint8_t> bytes(static_cast<size_t>(500 * block_bytes(type)));
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(256 * rng.uniform());
    const int64_t n = 500 * block_length(type);
    std::vector<float> expected(static_cast<size_t>(n)), found(expected.size());
    plain.dequantize[type](bytes.data(), expected.data(), n);
    blocks().dequantize[type](bytes.data(), found.data(), n);
    for (size_t i = 0; i < found.size(); ++i) {
      if (std::isnan(expected[i])) {
        ASSERT_TRUE(std::isnan(found[i])) << name_of(type) << " " << i;
      } else {
        ASSERT_EQ(found[i], expected[i]) << name_of(type) << " " << i;
      }
    }
  }
}

// Any order of float additions errs by at most n 2^-24 of the sum of magnitudes.
TEST_P(BlockTest, ProductsOfFewRows) {
  for (BlockType type : all_block_types()) {
    const int64_t rows = 5, cols = 512, stride = rows + 2;
    const GuardedBytes bytes(random_blocks(type, rows * cols / block_length(type), 12));
    std::vector<float> w(static_cast<size_t>(rows * cols));
    kernels_for(Isa::scalar).blocks.dequantize[type](bytes.data(), w.data(), rows * cols);
    for (int64_t x_rows : {1, 2, 4, 5, 9}) {
      const auto x = stored<float>(normal_values(x_rows * cols, 13));
      std::vector<float> y(static_cast<size_t>(x_rows * stride), -7.0f);
      blocks().product[type](bytes.data(), x.data(), y.data(), rows, cols, x_rows, stride);
      for (int64_t t = 0; t < x_rows; ++t) {
        for (int64_t r = 0; r < stride; ++r) {
          const float found = y[static_cast<size_t>(t * stride + r)];
          if (r >= rows) {
            ASSERT_EQ(found, -7.0f) << "written between rows";
            continue;
          }
          double sum = 0, magnitudes = 0;
          for (int64_t i = 0; i < cols; ++i) {
            const double term = static_cast<double>(w[static_cast<size_t>(r * cols + i)]) *
                                static_cast<double>(x[static_cast<size_t>(t * cols + i)]);
            sum += term;
            magnitudes += std::abs(term);
          }
          ASSERT_NEAR(static_cast<double>(found), sum, static_cast<double>(cols) * 0x1p-24 * magnitudes)
              << name_of(type) << " row " << r << " of token " << t << " of " << x_rows;
        }
      }
    }
  }
}

// Rounding errs by half a step of the code plus the rounding of the scale to f16.
TEST_P(BlockTest, RoundingErrsByHalfAStep) {
  struct Case {
    BlockType type;
    double steps;  // of the code between 0 and the extreme value, or between the least and the greatest
    bool offset;
  };
  for (const Case& c :
       {Case{BlockType::q4_0, 8, false}, Case{BlockType::q5_0, 16, false}, Case{BlockType::q8_0, 127, false},
        Case{BlockType::q4_1, 15, true}, Case{BlockType::q5_1, 31, true}}) {
    const auto x = stored<float>(normal_values(320, 14));
    std::vector<uint8_t> bytes(static_cast<size_t>(10 * block_bytes(c.type)));
    std::vector<float> back(320);
    blocks().quantize[c.type](x.data(), bytes.data(), 320);
    blocks().dequantize[c.type](bytes.data(), back.data(), 320);
    for (size_t b = 0; b < 10; ++b) {
      const auto [low, high] = std::minmax_element(x.begin() + 32 * b, x.begin() + 32 * (b + 1));
      const double largest = std::max(std::abs(*low), std::abs(*high));
      const double step = (c.offset ? *high - *low : largest) / c.steps;
      for (size_t i = 32 * b; i < 32 * (b + 1); ++i) {
        // q4_0 and q5_0 have no code for +8 and +16: a value opposite to the extreme errs by up to a whole
        // step.
        const double bound = (c.steps == 8 || c.steps == 16 ? 1.0 : 0.5) * step + 2 * 0x1p-11 * largest;
        EXPECT_NEAR(back[i], x[i], bound) << name_of(c.type);
      }
    }
  }
}

// Scales so small that their inverse is infinite, zeros, and the largest floats.
TEST_P(BlockTest, ExtremeValuesRoundToSomething) {
  for (BlockType type : all_block_types()) {
    if (blocks().quantize[type] == nullptr) continue;
    for (float magnitude : {0.0f, 1e-45f, 1e-40f, 3e-38f, 1e-15f, 60000.0f, 3e38f}) {
      std::vector<float> x(256);
      for (size_t i = 0; i < x.size(); ++i) x[i] = magnitude * (static_cast<float>(i % 7) - 3) / 3;
      std::vector<uint8_t> bytes(static_cast<size_t>(256 / block_length(type) * block_bytes(type)));
      blocks().quantize[type](x.data(), bytes.data(), 256);
      std::vector<float> back(256);
      blocks().dequantize[type](bytes.data(), back.data(), 256);
      if (magnitude == 0) {
        EXPECT_EQ(back, x) << name_of(type);
      }
      if (magnitude == 60000.0f) {
        for (float v : back) EXPECT_TRUE(std::isfinite(v)) << name_of(type);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isa, BlockTest, ::testing::ValuesIn(available_isas()),
                         [](const auto& info) { return std::string(isa_name(info.param)); });

template <typename Grid>
uint64_t checksum(const Grid& grid) {
  uint64_t hash = 0xCBF29CE484222325ULL;  // FNV-1a
  for (const auto& entry : grid) {
    for (auto value : entry) hash = (hash ^ static_cast<uint8_t>(value)) * 0x100000001B3ULL;
  }
  return hash;
}

// Of the grids that ggml's dequantization of single-index blocks shows.
TEST(BlockCodebooks, HaveTheirChecksums) {
  EXPECT_EQ(checksum(kIq2XxsGrid), 0xBB4EE025B5AC6E8EULL);
  EXPECT_EQ(checksum(kIq2XsGrid), 0xC9B1EE61E79909BDULL);
  EXPECT_EQ(checksum(kIq2SGrid), 0x123EDD38A3B62B90ULL);
  EXPECT_EQ(checksum(kIq3XxsGrid), 0xDFA5DC83D6A155D5ULL);
  EXPECT_EQ(checksum(kIq3SGrid), 0xFA37020C25B44829ULL);
  EXPECT_EQ(checksum(kIq1Grid), 0x6703ED863501AE2EULL);
}

TEST(BlockCodebooks, SignsAreEven) {
  for (uint32_t i = 0; i < 128; ++i) {
    EXPECT_EQ(signs_of_seven(i) & 127, static_cast<int>(i));
    EXPECT_EQ(__builtin_popcount(signs_of_seven(i)) % 2, 0);
  }
}

TEST(Float8, ValuesByDefinition) {
  for (int i = 0; i < 256; ++i) {
    const int sign = i & 128 ? -1 : 1, magnitude = i & 127;
    const float e4m3 = to_float(f8_e4m3{static_cast<uint8_t>(i)});
    if (magnitude == 127) {
      EXPECT_TRUE(std::isnan(e4m3));
    } else {
      const int exponent = magnitude >> 3, mantissa = magnitude & 7;
      EXPECT_EQ(e4m3,
                sign * (exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10)))
          << i;
    }
    const float e5m2 = to_float(f8_e5m2{static_cast<uint8_t>(i)});
    const int exponent = magnitude >> 2, mantissa = magnitude & 3;
    if (exponent == 31) {
      EXPECT_TRUE(mantissa == 0 ? std::isinf(e5m2) && std::signbit(e5m2) == (sign < 0) : std::isnan(e5m2))
          << i;
    } else {
      EXPECT_EQ(e5m2,
                sign * (exponent == 0 ? std::ldexp(mantissa, -16) : std::ldexp(4 + mantissa, exponent - 17)))
          << i;
    }
  }
  EXPECT_TRUE(std::signbit(to_float(f8_e4m3{0x80})));
}

}  // namespace
}  // namespace qkv::test
