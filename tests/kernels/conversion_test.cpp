// bf16 and f16: every pattern, every tie, NaN and infinity, on every instruction set.
#include "tests/kernels/kernel_testing.h"

namespace qkv {
namespace {

using test::same_bits;

float f32(uint32_t bits) { return std::bit_cast<float>(bits); }
uint32_t bits_of(float x) { return std::bit_cast<uint32_t>(x); }

// The value of a binary16 pattern by its definition.
double f16_value(uint16_t bits) {
  const int exponent = (bits >> 10) & 31, mantissa = bits & 1023;
  const double sign = (bits & 0x8000) != 0 ? -1 : 1;
  if (exponent == 31) return mantissa == 0 ? sign * INFINITY : NAN;
  return sign * (exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25));
}

template <typename T>
std::vector<T> all_patterns() {
  std::vector<T> result(65536);
  for (uint32_t i = 0; i < 65536; ++i) result[i].bits = static_cast<uint16_t>(i);
  return result;
}

// Floats around every boundary of a 16-bit type: the values, the midpoints between neighbours and one step either side.
template <typename T>
std::vector<float> boundaries() {
  std::vector<float> result;
  for (uint32_t i = 0; i < 65535; ++i) {
    const float a = to_float(T{static_cast<uint16_t>(i)}), b = to_float(T{static_cast<uint16_t>(i + 1)});
    if (!std::isfinite(a) || std::isnan(b) || (i & 0x7FFF) == 0x7FFF) continue;
    const float middle = std::isfinite(b) ? static_cast<float>((static_cast<double>(a) + static_cast<double>(b)) / 2)
                                          : static_cast<float>(2 * static_cast<double>(a) -
                                                               (static_cast<double>(a) + static_cast<double>(to_float(T{static_cast<uint16_t>(i - 1)}))) / 2);
    result.insert(result.end(), {a, middle, std::nextafter(middle, a), std::nextafter(middle, b)});
  }
  for (float special : {INFINITY, -INFINITY, 0.0f, -0.0f, 3.4028235e38f, -3.4028235e38f, 1e-45f, -1e-45f, 1.1754944e-38f, 65519.996f,
                        65520.0f, -65520.0f, 2.9802322e-8f, 2.9802326e-8f, 5.9604645e-8f}) {
    result.push_back(special);
  }
  return result;
}

// The nearest value of a 16-bit type, ties to the even pattern, by search in the ordered list of its values.
template <typename T>
uint16_t nearest_even(float x) {
  const uint16_t sign = std::signbit(x) ? 0x8000 : 0;
  const double magnitude = std::abs(static_cast<double>(x));
  const uint16_t infinity = sizeof(T) == 2 && std::is_same_v<T, f16> ? 0x7C00 : 0x7F80;
  uint16_t low = 0, high = infinity;
  while (high - low > 1) {  // value(low) <= magnitude < value(high)
    const auto middle = static_cast<uint16_t>((low + high) / 2);
    (static_cast<double>(to_float(T{middle})) <= magnitude ? low : high) = middle;
  }
  if (std::isinf(x)) return sign | infinity;
  const double below = static_cast<double>(to_float(T{low}));
  // Past the largest finite value, the next step counts as if the exponent went on.
  const double step = high == infinity ? below - static_cast<double>(to_float(T{static_cast<uint16_t>(low - 1)}))
                                       : static_cast<double>(to_float(T{high})) - below;
  const double distance = magnitude - below;
  const bool up = distance > step / 2 || (distance == step / 2 && (low & 1) != 0);
  return static_cast<uint16_t>(sign | (up ? high : low));
}

class ConversionTest : public ::testing::TestWithParam<Isa> {
 protected:
  const Kernels& kernels_ = kernels_for(GetParam());
};

TEST_P(ConversionTest, EveryF16PatternHasItsValue) {
  const auto patterns = all_patterns<f16>();
  std::vector<float> out(patterns.size());
  kernels_.f16_to_f32(patterns.data(), out.data(), 65536);
  for (uint32_t i = 0; i < 65536; ++i) {
    const double expected = f16_value(static_cast<uint16_t>(i));
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(out[i])) << std::hex << i;
      ASSERT_EQ(std::signbit(out[i]), (i & 0x8000) != 0) << std::hex << i;
    } else {
      ASSERT_EQ(bits_of(out[i]), bits_of(static_cast<float>(expected))) << std::hex << i;
    }
  }
}

TEST_P(ConversionTest, EveryBf16PatternHasItsValue) {
  const auto patterns = all_patterns<bf16>();
  std::vector<float> out(patterns.size());
  kernels_.bf16_to_f32(patterns.data(), out.data(), 65536);
  for (uint32_t i = 0; i < 65536; ++i) ASSERT_EQ(bits_of(out[i]), i << 16) << std::hex << i;
}

TEST_P(ConversionTest, EveryPatternComesBack) {
  std::vector<float> wide(65536);
  std::vector<f16> halves(65536);
  std::vector<bf16> brains(65536);
  const auto f16_patterns = all_patterns<f16>();
  const auto bf16_patterns = all_patterns<bf16>();
  kernels_.f16_to_f32(f16_patterns.data(), wide.data(), 65536);
  kernels_.f32_to_f16(wide.data(), halves.data(), 65536);
  for (uint32_t i = 0; i < 65536; ++i) {
    const bool nan = (i & 0x7FFF) > 0x7C00;
    ASSERT_EQ(halves[i].bits, nan ? i | 0x0200 : i) << std::hex << i;  // NaN comes back quiet
  }
  kernels_.bf16_to_f32(bf16_patterns.data(), wide.data(), 65536);
  kernels_.f32_to_bf16(wide.data(), brains.data(), 65536);
  for (uint32_t i = 0; i < 65536; ++i) {
    const bool nan = (i & 0x7FFF) > 0x7F80;
    ASSERT_EQ(brains[i].bits, nan ? i | 0x0040 : i) << std::hex << i;
  }
}

TEST_P(ConversionTest, RoundsToNearestTiesToEven) {
  const auto check = [](const auto& inputs, const auto& out) {
    using T = typename std::decay_t<decltype(out)>::value_type;
    for (size_t i = 0; i < inputs.size(); ++i) {
      ASSERT_EQ(out[i].bits, nearest_even<T>(inputs[i])) << inputs[i] << " (" << std::hex << bits_of(inputs[i]) << ")";
    }
  };
  const auto f16_inputs = boundaries<f16>();
  std::vector<f16> halves(f16_inputs.size());
  kernels_.f32_to_f16(f16_inputs.data(), halves.data(), static_cast<int64_t>(halves.size()));
  check(f16_inputs, halves);
  const auto bf16_inputs = boundaries<bf16>();
  std::vector<bf16> brains(bf16_inputs.size());
  kernels_.f32_to_bf16(bf16_inputs.data(), brains.data(), static_cast<int64_t>(brains.size()));
  check(bf16_inputs, brains);
}

TEST_P(ConversionTest, NanStaysNan) {
  // Payloads that rounding or truncation could turn into infinity or zero.
  for (uint32_t pattern : {0x7F800001u, 0x7FFFFFFFu, 0x7F808000u, 0x7FC00000u, 0xFF800001u, 0xFFFFFFFFu, 0x7F80FFFFu, 0x7F801000u}) {
    for (int64_t n : {1, 7, 16, 33}) {
      const std::vector<float> in(static_cast<size_t>(n), f32(pattern));
      std::vector<f16> halves(in.size());
      std::vector<bf16> brains(in.size());
      kernels_.f32_to_f16(in.data(), halves.data(), n);
      kernels_.f32_to_bf16(in.data(), brains.data(), n);
      for (size_t i = 0; i < in.size(); ++i) {
        ASSERT_TRUE(std::isnan(to_float(halves[i]))) << std::hex << pattern;
        ASSERT_TRUE(std::isnan(to_float(brains[i]))) << std::hex << pattern;
        ASSERT_EQ(halves[i].bits >> 15, pattern >> 31);
        ASSERT_EQ(brains[i].bits >> 15, pattern >> 31);
      }
    }
  }
}

TEST_P(ConversionTest, TailsEqualTheWhole) {
  const auto in = test::stored<float>(test::normal_values(70, 3));
  std::vector<f16> whole_half(70);
  std::vector<bf16> whole_brain(70);
  kernels_.f32_to_f16(in.data(), whole_half.data(), 70);
  kernels_.f32_to_bf16(in.data(), whole_brain.data(), 70);
  for (int64_t n = 1; n <= 70; ++n) {
    const std::vector<float> part(in.begin(), in.begin() + n);
    std::vector<f16> halves(part.size());
    std::vector<bf16> brains(part.size());
    std::vector<float> back(part.size());
    kernels_.f32_to_f16(part.data(), halves.data(), n);
    kernels_.f32_to_bf16(part.data(), brains.data(), n);
    ASSERT_TRUE(same_bits(halves, std::vector<f16>(whole_half.begin(), whole_half.begin() + n))) << n;
    ASSERT_TRUE(same_bits(brains, std::vector<bf16>(whole_brain.begin(), whole_brain.begin() + n))) << n;
    kernels_.f16_to_f32(halves.data(), back.data(), n);
    for (size_t i = 0; i < back.size(); ++i) ASSERT_EQ(back[i], to_float(halves[i]));
  }
}

INSTANTIATE_TEST_SUITE_P(Isa, ConversionTest, ::testing::ValuesIn(available_isas()),
                         [](const auto& info) { return std::string(isa_name(info.param)); });

TEST(ScalarConversion, HeaderFunctionsRoundAlike) {
  for (float x : boundaries<f16>()) ASSERT_EQ(to_f16(x).bits, nearest_even<f16>(x)) << x;
  for (float x : boundaries<bf16>()) ASSERT_EQ(to_bf16(x).bits, nearest_even<bf16>(x)) << x;
}

}  // namespace
}  // namespace qkv
