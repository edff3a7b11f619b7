// Activations and their gated forms, and how exact the vector exponential, error function and tanh are.
#include "tests/kernels/kernel_testing.h"

namespace qkv::test {
namespace {

template <typename T>
class ActivationKernels : public TypedKernelTest<T> {};
TYPED_TEST_SUITE(ActivationKernels, StorageTypes);

TYPED_TEST(ActivationKernels, ValueSlopeAndGatedForms) {
  using T = TypeParam;
  for (int64_t n : sizes()) {
    const Doubles gate = rounded<T>(normal_values(n, 1, 2)), up = rounded<T>(normal_values(n, 2)), dy = rounded<T>(normal_values(n, 3));
    const auto gate_t = stored<T>(gate), up_t = stored<T>(up), dy_t = stored<T>(dy);
    for (Activation kind : kActivations) {
      SCOPED_TRACE(::testing::Message() << "activation " << static_cast<int>(kind) << ", n = " << n);
      const auto value = [kind](double x) { return reference::activation(kind, x); };
      const auto slope = [kind](double x) { return reference::activation_slope(kind, x); };
      const Doubles f = reference::map<double>(value, gate), s = reference::map<double>(slope, gate);
      const auto times = [](double a, double b) { return a * b; };
      const Doubles dx = reference::map<double>(times, s, dy), y = reference::map<double>(times, f, up);
      const Doubles dgate = reference::map<double>(times, dx, up), dup = reference::map<double>(times, f, dy);
      const double r = kRounding<T> + 2e-6, a = 2e-6;
      this->for_each_isa([&](const TypedKernels<T>& k) {
        std::vector<T> out(gate_t.size()), other(gate_t.size());
        k.activation(kind, gate_t.data(), out.data(), n);
        ASSERT_TRUE(near(widened(out), f, r, a));
        k.activation_backward(kind, gate_t.data(), dy_t.data(), out.data(), n);
        ASSERT_TRUE(near(widened(out), dx, r, a));
        k.gated(kind, gate_t.data(), up_t.data(), out.data(), n);
        ASSERT_TRUE(near(widened(out), y, r, a));
        k.gated_backward(kind, gate_t.data(), up_t.data(), dy_t.data(), out.data(), other.data(), n);
        ASSERT_TRUE(near(widened(out), dgate, r, 2 * a));
        ASSERT_TRUE(near(widened(other), dup, r, a));
      });
    }
  }
}

// Every float from -200 to 200 on a fine grid, and the huge.
std::vector<float> sweep() {
  std::vector<float> x;
  for (double v = 1e-6; v < 200; v *= 1.0005) {
    x.push_back(static_cast<float>(v));
    x.push_back(static_cast<float>(-v));
  }
  for (float v : {0.0f, 1e4f, -1e4f, 1e18f, -1e18f}) x.push_back(v);
  return x;
}

TEST(Accuracy, ActivationsOverTheirWholeRange) {
  const std::vector<float> x = sweep();
  const auto n = static_cast<int64_t>(x.size());
  const std::vector<float> ones(x.size(), 1.0f);
  for (Isa isa : available_isas()) {
    for (Activation kind : kActivations) {
      SCOPED_TRACE(::testing::Message() << isa_name(isa) << ", activation " << static_cast<int>(kind));
      std::vector<float> value(x.size()), slope(x.size());
      kernels_for(isa).f32.activation(kind, x.data(), value.data(), n);
      kernels_for(isa).f32.activation_backward(kind, x.data(), ones.data(), slope.data(), n);
      double worst_value = 0, worst_slope = 0;
      for (size_t i = 0; i < x.size(); ++i) {
        const double f = reference::activation(kind, static_cast<double>(x[i])), s = reference::activation_slope(kind, static_cast<double>(x[i]));
        ASSERT_NEAR(static_cast<double>(value[i]), f, 3e-7 * std::abs(f) + 1e-6) << x[i];
        ASSERT_NEAR(static_cast<double>(slope[i]), s, 3e-7 * std::abs(s) + 1.5e-6) << x[i];
        if (std::abs(x[i]) > 20) continue;
        worst_value = std::max(worst_value, std::abs(static_cast<double>(value[i]) - f));
        worst_slope = std::max(worst_slope, std::abs(static_cast<double>(slope[i]) - s));
      }
      const std::string label = std::string(isa_name(isa)) + "_activation_" + std::to_string(static_cast<int>(kind));
      RecordProperty(label + "_value_error", std::to_string(worst_value * 1e9) + "e-9");
      RecordProperty(label + "_slope_error", std::to_string(worst_slope * 1e9) + "e-9");
    }
  }
}

// The gradient of log-softmax with an upstream of one on a last element is -e^y elsewhere: the exponential in the open.
TEST(Accuracy, Exponential) {
  std::vector<float> y;
  for (double v = -110; v <= 88; v += 0.0007) y.push_back(static_cast<float>(v));
  y.push_back(-INFINITY);
  y.push_back(-3e38f);
  y.push_back(0);
  const auto n = static_cast<int64_t>(y.size());
  std::vector<float> dy(y.size(), 0.0f), dx(y.size());
  dy.back() = 1;
  for (Isa isa : available_isas()) {
    SCOPED_TRACE(isa_name(isa));
    kernels_for(isa).f32.log_softmax_backward(y.data(), dy.data(), dx.data(), 1, n);
    double worst = 0;
    for (size_t i = 0; i + 1 < y.size(); ++i) {
      const double expected = std::exp(static_cast<double>(y[i])), found = -static_cast<double>(dx[i]);
      if (expected < 1.2e-38) {  // subnormal or nothing
        ASSERT_NEAR(found, expected, 1.2e-38) << y[i];
        continue;
      }
      const float near_float = static_cast<float>(expected);
      const double ulp = static_cast<double>(std::nextafter(near_float, INFINITY)) - static_cast<double>(near_float);
      worst = std::max(worst, std::abs(found - expected) / ulp);
    }
    EXPECT_LE(worst, 1.0);
    RecordProperty(std::string(isa_name(isa)) + "_ulp", std::to_string(worst));
  }
}

// gelu(x) / x = (1 + erf(x / sqrt 2)) / 2, and likewise for tanh: exact to float where x is small.
TEST(Accuracy, ErfAndTanhNearZero) {
  std::vector<float> x;
  for (double v = 1e-30; v < 1; v *= 1.01) x.push_back(static_cast<float>(v));
  const auto n = static_cast<int64_t>(x.size());
  for (Isa isa : available_isas()) {
    for (Activation kind : {Activation::gelu_erf, Activation::gelu_tanh}) {
      SCOPED_TRACE(isa_name(isa));
      std::vector<float> value(x.size());
      kernels_for(isa).f32.activation(kind, x.data(), value.data(), n);
      for (size_t i = 0; i < x.size(); ++i) {
        const double expected = reference::activation(kind, static_cast<double>(x[i]));
        ASSERT_NEAR(static_cast<double>(value[i]), expected, 4e-7 * expected) << x[i];
      }
    }
  }
}

TEST(Accuracy, NanIsNotHidden) {
  for (Isa isa : available_isas()) {
    for (Activation kind : kActivations) {
      for (int64_t n : {1, 8, 19}) {
        const std::vector<float> x(static_cast<size_t>(n), NAN), one(x.size(), 1.0f);
        std::vector<float> y(x.size()), z(x.size());
        kernels_for(isa).f32.activation(kind, x.data(), y.data(), n);
        for (float v : y) EXPECT_TRUE(std::isnan(v)) << isa_name(isa) << ", activation " << static_cast<int>(kind);
        kernels_for(isa).f32.gated(kind, x.data(), one.data(), z.data(), n);
        for (float v : z) EXPECT_TRUE(std::isnan(v)) << isa_name(isa) << ", activation " << static_cast<int>(kind);
      }
    }
  }
}

}  // namespace
}  // namespace qkv::test
