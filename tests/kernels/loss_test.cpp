// Cross-entropy of a row and the AdamW step on every instruction set.
#include "tests/kernels/kernel_testing.h"

namespace qkv::test {
namespace {

class LossKernels : public ::testing::TestWithParam<Isa> {
 protected:
  const Kernels& kernels_ = kernels_for(GetParam());
};

TEST_P(LossKernels, CrossEntropyOfARow) {
  for (int64_t n : sizes()) {
    const Doubles z = normal_values(n, 1, 3);
    for (const auto& [smoothing, z_loss] : std::vector<std::pair<float, float>>{{0, 0}, {0.1f, 0}, {0, 1e-2f}, {0.2f, 1e-3f}}) {
      SCOPED_TRACE(::testing::Message() << n << ", smoothing " << smoothing << ", z-loss " << z_loss);
      const reference::LossOptions<double> options{static_cast<double>(smoothing), static_cast<double>(z_loss), 0, 1};
      const int64_t target = n * 2 / 3;
      Doubles gradient(z.size());
      const double loss = reference::cross_entropy_row(z.data(), n, target, options, gradient.data());
      for (double& g : gradient) g *= -2.5;
      auto logits = stored<float>(z);
      float lse = 0;
      EXPECT_NEAR(static_cast<double>(kernels_.cross_entropy(logits.data(), n, target, smoothing, z_loss, false, 1, &lse)), loss, 2e-6 * (1 + loss));
      EXPECT_TRUE(same_bits(logits, stored<float>(z))) << "changed without a gradient asked for";
      EXPECT_NEAR(static_cast<double>(lse), reference::log_sum_exp(z.data(), n), 2e-6 * (1 + std::abs(static_cast<double>(lse))));
      EXPECT_NEAR(static_cast<double>(kernels_.cross_entropy(logits.data(), n, target, smoothing, z_loss, true, -2.5f, nullptr)), loss,
                  2e-6 * (1 + loss));
      ASSERT_TRUE(near(widened(logits), gradient, 3e-6, 1e-6));
    }
  }
}

TEST_P(LossKernels, CrossEntropyOfExtremes) {
  for (int64_t n : {2, 8, 9, 33}) {
    for (bool gradient : {false, true}) {
      SCOPED_TRACE(::testing::Message() << n << " gradient " << gradient);
      const auto count = static_cast<size_t>(n);
      std::vector<float> z(count, -1e4f);
      z[1] = 1e4f;  // certain and right
      float lse = 0;
      EXPECT_EQ(kernels_.cross_entropy(z.data(), n, 1, 0, 0, gradient, 1, &lse), 0.0f);
      EXPECT_EQ(lse, 1e4f);
      if (gradient) {
        for (float g : z) EXPECT_EQ(g, 0.0f);
      }
      z.assign(count, -1e4f);
      z[1] = 1e4f;  // certain and wrong
      EXPECT_EQ(kernels_.cross_entropy(z.data(), n, 0, 0, 0, gradient, 1, nullptr), 2e4f);
      if (gradient) {
        EXPECT_EQ(z[0], -1.0f);
        EXPECT_EQ(z[1], 1.0f);
      }
      z.assign(count, -INFINITY);  // all but two masked
      z[0] = z[count - 1] = 3.0f;
      EXPECT_NEAR(kernels_.cross_entropy(z.data(), n, 0, 0, 0, gradient, 1, nullptr), std::log(2.0f), 1e-6f);
      if (gradient) {
        EXPECT_NEAR(z[0], -0.5f, 1e-6f);
        for (size_t i = 1; i + 1 < count; ++i) EXPECT_EQ(z[i], 0.0f);
      }
      z.assign(count, 0.0f);
      z[0] = -INFINITY;  // the target itself is impossible
      EXPECT_EQ(kernels_.cross_entropy(z.data(), n, 0, 0, 0, gradient, 1, nullptr), INFINITY);
      for (size_t poisoned : {size_t{0}, count / 2, count - 1}) {
        z.assign(count, 0.5f);
        z[poisoned] = NAN;
        EXPECT_TRUE(std::isnan(kernels_.cross_entropy(z.data(), n, 1, 0, 0, gradient, 1, nullptr))) << "NaN at " << poisoned;
        if (gradient) {
          for (float g : z) EXPECT_TRUE(std::isnan(g));
        }
      }
    }
  }
}

TEST_P(LossKernels, AdamWSteps) {
  for (int64_t n : {1, 3, 8, 17, 70, 1000}) {
    reference::AdamW<double> expected{1e-2, 0.9, 0.95, 1e-8, 0.1, {}, {}};
    Doubles p = normal_values(n, 1);
    auto parameter = stored<float>(p);
    std::vector<float> m(parameter.size(), 0.0f), v(parameter.size(), 0.0f);
    for (int t = 1; t <= 10; ++t) {
      const Doubles g = normal_values(n, 100 + static_cast<uint64_t>(t));
      const auto gradient = stored<float>(g);
      AdamWStep step{1e-2f, 0.9f, 0.95f, 1e-8f, 0.1f, static_cast<float>(1 - std::pow(0.9, t)), static_cast<float>(1 - std::pow(0.95, t)), 0.5f};
      kernels_.adamw(step, parameter.data(), gradient.data(), m.data(), v.data(), n);
      Doubles halved = g;
      for (double& x : halved) x *= 0.5;
      expected.step(p, halved);
      ASSERT_TRUE(near(widened(parameter), p, 1e-6, 1e-6)) << "step " << t << ", n = " << n;
    }
    ASSERT_TRUE(near(widened(m), expected.m, 1e-5, 1e-7));
    ASSERT_TRUE(near(widened(v), expected.v, 1e-5, 1e-7));
  }
}

INSTANTIATE_TEST_SUITE_P(Isa, LossKernels, ::testing::ValuesIn(available_isas()),
                         [](const auto& info) { return std::string(isa_name(info.param)); });

}  // namespace
}  // namespace qkv::test
