#include "qkv/quant/uniform.h"

#include "qkv/quant/scaled_fp8.h"
#include "qkv/tensor/convert.h"
#include "tests/quant/quant_support.h"

namespace qkv {
namespace {

using test::QuantGolden;
using test::random_matrix;

constexpr double kFloat = 0x1p-23;

// Scales are f32 where the reference has f64 (or f32): two roundings apart. Codes must be the same, so
// dequantized values differ as the scales do.
TEST(Uniform, RoundToNearestGivesTheReferenceVectors) {
  const QuantGolden golden;
  for (const auto& [name, range] : {std::pair{"rtn_sym", CodeRange::symmetric},
                                    {"rtn_asym", CodeRange::asymmetric},
                                    {"awq.rtn_zero_point", CodeRange::within}}) {
    UniformScheme scheme{.bits = 4, .range = range, .group = 32};
    const CodedMatrix rounded = round_to_nearest(golden.matrix("gptq.weight"), scheme);
    const std::string prefix = name;
    test::expect_close(rounded.scales, golden.values(prefix + ".scale"), 2 * kFloat, prefix);
    test::expect_close(rounded.zeros, golden.values(prefix + ".zero"), 0, prefix);
    test::expect_close(rounded.dequantize().to_floats(), golden.values(prefix + ".dequant"), 4 * kFloat,
                       prefix);
  }
}

TEST(Uniform, ErrorIsAtMostHalfAStepForEveryShapeOfScale) {
  const Tensor weight = random_matrix(24, 160, 3);
  for (const int bits : {2, 3, 4, 5, 8}) {
    for (const CodeRange range : {CodeRange::symmetric, CodeRange::asymmetric, CodeRange::within}) {
      for (const int64_t group : {int64_t{0}, int64_t{32}, int64_t{64}, int64_t{128}}) {
        UniformScheme scheme{.bits = bits, .range = range, .group = group};
        scheme.one_scale = group == 0 && bits == 8;
        const CodedMatrix rounded = round_to_nearest(weight, scheme);
        EXPECT_EQ(rounded.groups, group == 0 ? 1 : (160 + group - 1) / group);
        const Tensor back = rounded.dequantize();
        for (int64_t i = 0; i < weight.elements(); ++i) {
          const ScaleAndZero scale = rounded.scale(i / 160, rounded.group_of[static_cast<size_t>(i % 160)]);
          const float w = weight.data<float>()[i], error = std::abs(back.data<float>()[i] - w);
          // A zero point that is rounded, and codes that end half a step early on one side, cost up to half a
          // step more.
          ASSERT_LE(error, scale.scale * 1.001) << bits << " bits, group " << group << " at " << i;
          const int code = rounded.codes[static_cast<size_t>(i)];
          if (code > 0 && code < scheme.largest_code()) {
            ASSERT_LE(error, scale.scale * 0.5001);
          }
        }
      }
    }
  }
}

TEST(Uniform, CodesAreChosenForTheScaleThatIsStored) {
  const Tensor weight = random_matrix(4, 64, 9, 1e-3f);
  UniformScheme scheme{.bits = 4, .group = 32, .scale_type = DType::f16};
  const CodedMatrix rounded = round_to_nearest(weight, scheme);
  for (const float scale : rounded.scales) EXPECT_EQ(to_float(to_f16(scale)), scale);
}

TEST(Uniform, ZerosTinyAndHugeValuesStayFinite) {
  for (const CodeRange range : {CodeRange::symmetric, CodeRange::asymmetric, CodeRange::within}) {
    for (const float value : {0.0f, 1e-44f, -1e-30f, 3e38f, -3e38f}) {
      for (const DType type : {DType::f32, DType::f16, DType::bf16}) {
        const UniformScheme scheme{.bits = 4, .range = range, .group = 8, .scale_type = type};
        const Tensor back = round_to_nearest(Tensor::full({2, 24}, value), scheme).dequantize();
        for (const float x : back.to_floats()) EXPECT_TRUE(std::isfinite(x)) << value << ' ' << name(type);
      }
    }
  }
}

TEST(Uniform, SettingsThatMeanNothingAreRefused) {
  const Tensor weight = Tensor::zeros({2, 32});
  EXPECT_EQ(test::error_of([&] { round_to_nearest(weight, {.bits = 9}); }),
            "rounding: expected 2 to 8 bits, found 9");
  EXPECT_EQ(test::error_of([&] { round_to_nearest(weight, {.group = -1}); }),
            "rounding: expected groups of at least 1 column, found -1");
  EXPECT_EQ(test::error_of([&] { round_to_nearest(weight, {.group = 32, .one_scale = true}); }),
            "rounding: expected no groups with one scale for the tensor, found 32");
  Tensor bad = Tensor::zeros({2, 3});
  bad.data<float>()[4] = NAN;
  EXPECT_EQ(test::error_of([&] { require_finite(bad, "a.weight"); }),
            "tensor 'a.weight': expected finite numbers, found nan at element 4");
}

// Every code of both types against the nearest of all codes, found by trying all.
TEST(Fp8, EveryNumberGoesToTheNearest) {
  for (const DType type : {DType::f8_e4m3, DType::f8_e5m2}) {
    const auto value_of = [&](uint8_t bits) {
      float value;
      widen(reinterpret_cast<const std::byte*>(&bits), type, 0, 1, &value);
      return value;
    };
    Rng rng(7);
    for (int i = 0; i < 4000; ++i) {
      const float x = std::ldexp(rng.normal(), static_cast<int>(rng.below(40)) - 22);
      const float found = value_of(to_fp8(x, type));
      float nearest = INFINITY;
      for (int bits = 0; bits < 256; ++bits) {
        const float value = value_of(static_cast<uint8_t>(bits));
        if (std::isfinite(value) && std::abs(value - x) < std::abs(nearest - x)) nearest = value;
      }
      ASSERT_EQ(std::abs(found - x), std::abs(nearest - x)) << name(type) << ' ' << x;
    }
    for (int bits = 0; bits < 256; ++bits) {  // and every code to itself
      const float value = value_of(static_cast<uint8_t>(bits));
      if (std::isfinite(value)) {
        EXPECT_EQ(to_fp8(value, type), bits) << name(type);
      }
    }
    EXPECT_TRUE(std::isnan(value_of(to_fp8(NAN, type))));
  }
  // Half-way: 17 lies between 16 and 18.
  EXPECT_EQ(to_fp8(17.0f, DType::f8_e4m3), to_fp8(16.0f, DType::f8_e4m3));
  EXPECT_EQ(to_fp8(19.0f, DType::f8_e4m3), to_fp8(20.0f, DType::f8_e4m3));
}

TEST(Fp8, ScalesPerTensorRowAndBlock) {
  const Tensor weight = random_matrix(20, 70, 5, 1e-3f);
  for (const auto& [height, width] : {std::pair<int64_t, int64_t>{0, 0}, {1, 0}, {16, 32}}) {
    const Fp8Matrix matrix = quantize_fp8(weight, DType::f8_e4m3, height, width);
    const int64_t h = height > 0 ? height : 20, w = width > 0 ? width : 70, across = (70 + w - 1) / w;
    EXPECT_EQ(matrix.scales.shape(), (Shape{(20 + h - 1) / h, across}));
    const std::vector<float> codes = matrix.values.to(DType::f32).to_floats();
    for (int64_t i = 0; i < weight.elements(); ++i) {
      const float scale = matrix.scales.data<float>()[i / 70 / h * across + i % 70 / w],
                  x = weight.data<float>()[i];
      // 3 bits of mantissa: 2^-4 of the value, or half the smallest step.
      ASSERT_LE(std::abs(codes[static_cast<size_t>(i)] * scale - x),
                std::max(std::abs(x) * 0x1p-4f, scale * 0x1p-10f) * 1.0001f);
    }
  }
}

}  // namespace
}  // namespace qkv
