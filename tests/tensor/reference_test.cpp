// The closed-form gradients of the references against central differences.
#include "tests/tensor/tensor_testing.h"

namespace qkv::test {
namespace {

constexpr int64_t kRows = 3, kCols = 7;
constexpr double kTolerance = 1e-8;

// The gradient of inner(upstream, f(x)).
Doubles differences(const std::function<Doubles(const Doubles&)>& f, const Doubles& x, const Doubles& upstream) {
  return reference::finite_difference<double>([&](const Doubles& at) { return reference::inner(f(at), upstream); }, x);
}

TEST(Reference, ActivationSlopes) {
  const Doubles x = normal_values(200, 1, 2), ones(200, 1.0);
  for (auto kind : {Activation::silu, Activation::gelu_erf, Activation::gelu_tanh, Activation::quick_gelu, Activation::relu, Activation::relu2,
                      Activation::sigmoid}) {
    const auto f = [=](const Doubles& v) { return reference::map<double>([=](double a) { return reference::activation(kind, a); }, v); };
    EXPECT_TRUE(close(reference::map<double>([=](double a) { return reference::activation_slope(kind, a); }, x), differences(f, x, ones), kTolerance));
  }
}

TEST(Reference, Norms) {
  const Doubles x = normal_values(kRows * kCols, 1), w = normal_values(kCols, 2), b = normal_values(kCols, 3), dy = normal_values(kRows * kCols, 4);
  const auto rms = reference::rms_norm_gradients(dy, x, w, kRows, kCols, 1e-5);
  EXPECT_TRUE(close(rms.dx, differences([&](const Doubles& v) { return reference::rms_norm(v, w, kRows, kCols, 1e-5); }, x, dy), kTolerance));
  EXPECT_TRUE(close(rms.dw, differences([&](const Doubles& v) { return reference::rms_norm(x, v, kRows, kCols, 1e-5); }, w, dy), kTolerance));
  const auto layer = reference::layer_norm_gradients(dy, x, w, kRows, kCols, 1e-5);
  EXPECT_TRUE(close(layer.dx, differences([&](const Doubles& v) { return reference::layer_norm(v, w, b, kRows, kCols, 1e-5); }, x, dy), kTolerance));
  EXPECT_TRUE(close(layer.dw, differences([&](const Doubles& v) { return reference::layer_norm(x, v, b, kRows, kCols, 1e-5); }, w, dy), kTolerance));
  EXPECT_TRUE(close(layer.db, differences([&](const Doubles& v) { return reference::layer_norm(x, w, v, kRows, kCols, 1e-5); }, b, dy), kTolerance));
}

TEST(Reference, SoftmaxAndLogSoftmax) {
  const Doubles x = normal_values(kRows * kCols, 1, 2), dy = normal_values(kRows * kCols, 4);
  const auto soft = [](const Doubles& v) { return reference::softmax(v, kRows, kCols); };
  const auto log_soft = [](const Doubles& v) { return reference::log_softmax(v, kRows, kCols); };
  EXPECT_TRUE(close(reference::softmax_gradient(soft(x), dy, kRows, kCols), differences(soft, x, dy), kTolerance));
  EXPECT_TRUE(close(reference::log_softmax_gradient(log_soft(x), dy, kRows, kCols), differences(log_soft, x, dy), kTolerance));
}

TEST(Reference, RopeTurnsBack) {
  const Doubles angle = normal_values(kRows * 3, 1);
  const Doubles cos = reference::map<double>([](double a) { return std::cos(a); }, angle), sin = reference::map<double>([](double a) { return std::sin(a); }, angle);
  const Doubles x = normal_values(kRows * 16, 2), dy = normal_values(kRows * 16, 3);
  for (bool interleaved : {false, true}) {
    const auto f = [&](const Doubles& v) { return reference::rope(v, cos, sin, kRows, 2, 8, 6, interleaved); };
    EXPECT_TRUE(close(reference::rope(dy, cos, sin, kRows, 2, 8, 6, interleaved, -1.0), differences(f, x, dy), kTolerance));
    EXPECT_TRUE(close(reference::rope(f(x), cos, sin, kRows, 2, 8, 6, interleaved, -1.0), x, 1e-12));
  }
}

TEST(Reference, CrossEntropy) {
  const Doubles x = normal_values(kRows * kCols, 1, 2), weights = {1, -0.5, 2};
  const std::vector<int32_t> targets = {6, -100, 2};
  for (const auto& options : {reference::LossOptions<double>{}, reference::LossOptions<double>{0.1, 0.01, 2.0, 0.5}}) {
    Doubles gradient;
    reference::cross_entropy(x, kCols, targets, options, weights, &gradient);
    const auto f = [&](const Doubles& v) { return Doubles{reference::cross_entropy(v, kCols, targets, options, weights)}; };
    EXPECT_TRUE(close(gradient, differences(f, x, {1.0}), kTolerance));
  }
}

}  // namespace
}  // namespace qkv::test
