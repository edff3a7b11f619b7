#include "qkv/quant/gptq.h"

#include "qkv/quant/awq.h"
#include "qkv/quant/inverse_factor.h"
#include "tests/quant/quant_support.h"

namespace qkv {
namespace {

using test::QuantGolden;

TEST(InverseFactor, ItsProductInvertsTheMatrix) {
  for (const int64_t n : {1, 7, 64, 65, 200}) {
    const Tensor x = test::random_matrix(2 * n + 5, n, static_cast<uint64_t>(n));
    const Tensor h = damped(test::statistics_of(x).products(), 0.01);
    const Tensor u = inverse_factor(h).value();
    const float *a = h.data<float>(), *f = u.data<float>();
    // U H U^T = 1.
    for (int64_t i = 0; i < n; i += 1 + n / 7) {
      for (int64_t j = 0; j < n; j += 1 + n / 5) {
        double sum = 0;
        for (int64_t k = 0; k < n; ++k) {
          double inner = 0;
          for (int64_t l = 0; l < n; ++l) inner += double{a[k * n + l]} * f[j * n + l];
          sum += f[i * n + k] * inner;
        }
        // Of f32 factors: n roundings times the condition number, below 1e3 here.
        ASSERT_NEAR(sum, i == j ? 1.0 : 0.0, 1e-3) << n << ' ' << i << ' ' << j;
      }
      for (int64_t j = 0; j < i; ++j) EXPECT_EQ(f[i * n + j], 0.0f);
    }
  }
}

TEST(InverseFactor, DampingGrowsUntilItHelps) {
  Tensor h = Tensor::from(std::vector<float>{1, 2, 2, 1}, {2, 2});  // eigenvalues 3 and -1
  EXPECT_FALSE(inverse_factor(h).has_value());
  EXPECT_EQ(test::error_of([&] { (void)damped_inverse_factor(h, -1, "here"); }),
            "here: expected a damping of at least 0, found -1");
  EXPECT_TRUE(damped_inverse_factor(h, 0.01, "here").defined());
  h.data<float>()[1] = NAN;
  EXPECT_THAT(test::error_of([&] { (void)damped_inverse_factor(h, 0.01, "here"); }),
              testing::StartsWith("here: expected a positive definite"));
}

TEST(Gptq, ProductsAreTheReferencesHessian) {
  const QuantGolden golden;
  const InputStatistics inputs = golden.inputs();
  std::vector<double> hessian = golden.values("gptq.hessian_2XtX");
  // AutoGPTQ divides by the number of samples it was called with; the unit does not matter.
  const double unit = inputs.products().data<float>()[0] / hessian[0];
  double largest = 0;
  for (double& h : hessian) largest = std::max(largest, std::abs(h *= unit));
  test::expect_close(inputs.products().to_floats(), hessian, 256 * 0x1p-24, "hessian", largest);
}

struct GptqCase {
  const char* name;
  GptqOptions options;
};
UniformScheme of_32(CodeRange range = CodeRange::symmetric, int64_t group = 32) {
  return {.bits = 4, .range = range, .group = group};
}

// The fixtures' data are such that f32 and f64 give the same codes.
TEST(Gptq, CodesScalesAndGroupsAreAutoGptqs) {
  const QuantGolden golden;
  const Tensor weight = golden.matrix("gptq.weight");
  const InputStatistics inputs = golden.inputs();
  const std::vector<GptqCase> cases = {
      {"gptq", {.scheme = of_32()}},
      {"gptq_bs32", {.scheme = of_32(), .block = 32}},
      {"gptq_actorder", {.scheme = of_32(), .act_order = true}},
      {"gptq_actorder_static", {.scheme = of_32(), .act_order = true, .static_groups = true}},
      {"gptq_asym", {.scheme = of_32(CodeRange::asymmetric)}},
      {"gptq_perrow", {.scheme = of_32(CodeRange::symmetric, 0)}},
  };
  for (const auto& [name, options] : cases) {
    const std::string prefix = name;
    const CodedMatrix coded = gptq(weight, inputs.products(), options);
    test::expect_close(coded.codes, golden.values(prefix + ".codes"), 0, prefix + " codes");
    test::expect_close(coded.group_of, golden.values(prefix + ".g_idx"), 0, prefix + " groups");
    test::expect_close(coded.zeros, golden.values(prefix + ".zero"), 0, prefix + " zeros");
    // Scales are made of weights that are compensated in f32, with errors of 64 products.
    test::expect_close(coded.scales, golden.values(prefix + ".scale"), 1e-5, prefix + " scales");
    test::expect_close(coded.dequantize().to_floats(), golden.values(prefix + ".dequant"), 1e-5,
                       prefix + " values", 1e-2);
  }
}

TEST(Gptq, LeavesLessErrorThanRoundingOnCorrelatedInputs) {
  const Tensor x = test::correlated_inputs(400, 160, 5), weight = test::random_matrix(48, 160, 8, 0.1f);
  const InputStatistics inputs = test::statistics_of(x);
  for (const int bits : {2, 3, 4, 8}) {
    for (const CodeRange range : {CodeRange::symmetric, CodeRange::asymmetric}) {
      for (const bool act_order : {false, true}) {
        GptqOptions options{.scheme = {.bits = bits, .range = range, .group = 32},
                            .act_order = act_order,
                            .static_groups = act_order};
        const double rounded =
            output_error(weight, round_to_nearest(weight, options.scheme).dequantize(), inputs.products());
        const double compensated =
            output_error(weight, gptq(weight, inputs.products(), options).dequantize(), inputs.products());
        EXPECT_LT(compensated, 0.7 * rounded) << bits << ' ' << act_order;
      }
    }
  }
}

TEST(Gptq, ColumnsWithoutInputAreRoundedToNearest) {
  const Tensor weight = test::random_matrix(8, 64, 8);
  const GptqOptions options{.scheme = {.bits = 4, .group = 32}};
  const CodedMatrix plain = round_to_nearest(weight, options.scheme);
  EXPECT_EQ(gptq(weight, Tensor::zeros({64, 64}), options).codes, plain.codes);
  EXPECT_EQ(gptq(Tensor::zeros({3, 40}), Tensor::zeros({40, 40}), options).dequantize().to_floats(),
            std::vector<float>(120, 0.0f));
}

TEST(Gptq, ShapesThatDoNotFitAreRefused) {
  EXPECT_EQ(test::error_of([] {
              (void)gptq(Tensor::zeros({2, 8}), Tensor::zeros({4, 4}), {}, "a.weight");
            }),
            "[gptq] a.weight: expected sums of products of 8 inputs, found (4, 4)");
}

TEST(Awq, LossesFactorsAndWeightAreLlmAwqs) {
  const QuantGolden golden;
  const Tensor weight = golden.matrix("gptq.weight");
  const InputStatistics inputs = golden.inputs();
  test::expect_close(inputs.mean_magnitudes(), golden.values("awq.act_scale"), 1e-6, "magnitudes");
  const UniformScheme scheme = of_32(CodeRange::within);
  const AwqSearch search = search_awq_factors({weight}, inputs, scheme);
  // Differences of f32 weights, some 1e-5 of which are rounding, squared.
  test::expect_close(search.losses, golden.values("awq.losses_per_ratio"), 1e-4, "losses");
  EXPECT_NEAR(search.ratio, golden.settings("awq").at("best_ratio").get<double>(), 1e-12);
  test::expect_close(search.factors, golden.values("awq.best_scales"), 1e-6, "factors");
  const Tensor rounded = round_to_nearest(multiply_columns(weight, search.factors), scheme).dequantize();
  test::expect_close(divide_columns(rounded, search.factors).to_floats(),
                     golden.values("awq.dequant_effective_weight"), 1e-6, "weight", 1e-2);
  test::expect_close(search_awq_limits(weight, inputs, scheme).to_floats(), golden.values("awq.clip_max_val"),
                     1e-6, "limits");
}

TEST(Awq, LeavesLessErrorThanRoundingOnCorrelatedInputs) {
  const Tensor x = test::correlated_inputs(400, 128, 5), weight = test::random_matrix(48, 128, 8, 0.1f);
  const InputStatistics inputs = test::statistics_of(x);
  const UniformScheme scheme{.bits = 4, .range = CodeRange::within, .group = 32};
  const double plain = output_error(weight, round_to_nearest(weight, scheme).dequantize(), inputs.products());
  const AwqSearch search = search_awq_factors({weight}, inputs, scheme);
  EXPECT_GT(search.ratio, 0);
  const Tensor scaled = multiply_columns(weight, search.factors);
  const auto error_of = [&](const Tensor& values) {
    return output_error(weight, divide_columns(round_to_nearest(values, scheme).dequantize(), search.factors),
                        inputs.products());
  };
  EXPECT_LT(error_of(scaled), 0.9 * plain);
  // What divides the factors out of the inputs as well gives the same.
  InputStatistics divided = inputs;
  divided.divide_columns(search.factors);
  EXPECT_NEAR(output_error(scaled, round_to_nearest(scaled, scheme).dequantize(), divided.products()),
              error_of(scaled), 1e-3 * error_of(scaled));
  EXPECT_LE(error_of(limit_groups(scaled, search_awq_limits(scaled, divided, scheme), scheme)),
            1.05 * error_of(scaled));
}

// Migrated and multiplied back the product is the same; the largest inputs are no longer outliers.
TEST(SmoothQuant, EvensOutInputsAndWeights) {
  const Tensor x = test::correlated_inputs(100, 64, 5), weight = test::random_matrix(16, 64, 8, 0.1f);
  const InputStatistics inputs = test::statistics_of(x);
  const std::vector<float> factors = smoothquant_factors({weight}, inputs, 0.5);
  const Tensor scaled = multiply_columns(weight, factors);
  const auto most = [](const Tensor& m, size_t column) {
    float largest = 0;
    for (int64_t r = 0; r < m.rows(); ++r)
      largest = std::max(largest, std::abs(m.data<float>()[r * m.cols() + static_cast<int64_t>(column)]));
    return largest;
  };
  for (size_t c = 0; c < 64; ++c)  // with alpha 1/2 both sides are equally large
    EXPECT_NEAR(inputs.largest_magnitudes()[c] / factors[c], most(scaled, c), 1e-5 * most(scaled, c));
  EXPECT_EQ(smoothquant_factors({Tensor::zeros({2, 64})}, inputs, 0.5), std::vector<float>(64, 1.0f));
  EXPECT_EQ(test::error_of([&] { (void)smoothquant_factors({weight}, inputs, 2); }),
            "smoothquant: expected a strength of 0 to 1, found 2");
}

}  // namespace
}  // namespace qkv
