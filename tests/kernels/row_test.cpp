// Norms and softmax over rows on every instruction set.
#include "tests/kernels/kernel_testing.h"

namespace qkv::test {
namespace {

template <typename T>
class RowKernels : public TypedKernelTest<T> {};
TYPED_TEST_SUITE(RowKernels, StorageTypes);

constexpr int64_t kRows = 3;

double largest(const Doubles& values) {
  double result = 0;
  for (double v : values) result = std::max(result, std::abs(v));
  return result;
}

TYPED_TEST(RowKernels, RmsNorm) {
  using T = TypeParam;
  const float eps = 1e-5f;
  for (int64_t cols : sizes()) {
    const Doubles x = rounded<T>(normal_values(kRows * cols, 1)), dy = rounded<T>(normal_values(kRows * cols, 2));
    const Doubles start = normal_values(cols, 4);
    const auto x_t = stored<T>(x), dy_t = stored<T>(dy);
    for (bool weighted : {true, false}) {
      SCOPED_TRACE(::testing::Message() << cols << " weighted " << weighted);
      const Doubles w = weighted ? normal_values(cols, 3) : Doubles();
      const auto w_f = stored<float>(w), start_f = stored<float>(start);
      Doubles rstd;
      const Doubles y = reference::rms_norm(x, w, kRows, cols, static_cast<double>(eps), &rstd);
      auto g = reference::rms_norm_gradients(dy, x, w, kRows, cols, static_cast<double>(eps));
      for (size_t i = 0; i < g.dw.size(); ++i) g.dw[i] += start[i];
      this->for_each_isa([&](const TypedKernels<T>& k) {
        std::vector<T> out(x_t.size()), dx(x_t.size());
        std::vector<float> rstd_f(kRows), dw = start_f;
        const float* weight = weighted ? w_f.data() : nullptr;
        k.rms_norm(x_t.data(), weight, out.data(), rstd_f.data(), kRows, cols, eps);
        ASSERT_TRUE(near(widened(out), y, kRounding<T> + 1e-6, 0));
        ASSERT_TRUE(near(widened(rstd_f), rstd, 1e-6, 0));
        k.rms_norm(x_t.data(), weight, dx.data(), nullptr, kRows, cols, eps);
        ASSERT_TRUE(same_bits(dx, out));
        k.rms_norm_backward(dy_t.data(), x_t.data(), weight, rstd_f.data(), dx.data(), dw.data(), kRows, cols);
        ASSERT_TRUE(near(widened(dx), g.dx, kRounding<T>, 2e-6 * largest(g.dx) + 2e-6 * std::abs(rstd[0])));
        ASSERT_TRUE(near(widened(dw), g.dw, 2e-6, 2e-6));
        k.rms_norm_backward(dy_t.data(), x_t.data(), weight, rstd_f.data(), dx.data(), nullptr, kRows, cols);
      });
    }
  }
}

TYPED_TEST(RowKernels, LayerNorm) {
  using T = TypeParam;
  const float eps = 1e-5f;
  for (int64_t cols : sizes()) {
    if (cols < 3) continue;  // two elements normalize to a sign; the gradient is nothing but rounding
    Doubles x = normal_values(kRows * cols, 1);
    for (double& v : x) v += 3;  // a mean to take away
    x = rounded<T>(x);
    const Doubles dy = rounded<T>(normal_values(kRows * cols, 2)), start = normal_values(cols, 4);
    const auto x_t = stored<T>(x), dy_t = stored<T>(dy);
    for (bool weighted : {true, false}) {
      SCOPED_TRACE(::testing::Message() << cols << " weighted " << weighted);
      const Doubles w = weighted ? normal_values(cols, 3) : Doubles(), b = weighted ? normal_values(cols, 5) : Doubles();
      const auto w_f = stored<float>(w), b_f = stored<float>(b), start_f = stored<float>(start);
      Doubles mean, rstd;
      const Doubles y = reference::layer_norm(x, w, b, kRows, cols, static_cast<double>(eps), &mean, &rstd);
      auto g = reference::layer_norm_gradients(dy, x, w, kRows, cols, static_cast<double>(eps));
      for (size_t i = 0; i < g.dw.size(); ++i) {
        g.dw[i] += start[i];
        g.db[i] += start[i];
      }
      const double tightness = largest(rstd);
      this->for_each_isa([&](const TypedKernels<T>& k) {
        std::vector<T> out(x_t.size()), dx(x_t.size());
        std::vector<float> mean_f(kRows), rstd_f(kRows), dw = start_f, db = start_f;
        const float* weight = weighted ? w_f.data() : nullptr;
        const float* bias = weighted ? b_f.data() : nullptr;
        k.layer_norm(x_t.data(), weight, bias, out.data(), mean_f.data(), rstd_f.data(), kRows, cols, eps);
        ASSERT_TRUE(near(widened(out), y, kRounding<T> + 1e-6, 2e-6 * (1 + tightness)));
        ASSERT_TRUE(near(widened(mean_f), mean, 1e-6, 0));
        ASSERT_TRUE(near(widened(rstd_f), rstd, 2e-6 * (1 + tightness), 0));
        k.layer_norm_backward(dy_t.data(), x_t.data(), weight, mean_f.data(), rstd_f.data(), dx.data(), dw.data(), db.data(), kRows, cols);
        ASSERT_TRUE(near(widened(dx), g.dx, kRounding<T>, 3e-6 * tightness * (1 + tightness)));
        ASSERT_TRUE(near(widened(dw), g.dw, 3e-6, 3e-6 * (1 + tightness)));
        ASSERT_TRUE(near(widened(db), g.db, 2e-6, 2e-6));
        k.layer_norm_backward(dy_t.data(), x_t.data(), weight, mean_f.data(), rstd_f.data(), dx.data(), nullptr, nullptr, kRows, cols);
        k.layer_norm(x_t.data(), weight, bias, dx.data(), nullptr, nullptr, kRows, cols, eps);
        ASSERT_TRUE(same_bits(dx, out));
      });
    }
  }
}

TYPED_TEST(RowKernels, NormsOfZerosAreZeros) {
  using T = TypeParam;
  for (int64_t cols : {1, 5, 32, 67}) {
    const std::vector<T> x(static_cast<size_t>(2 * cols), from_float<T>(0)), dy(x.size(), from_float<T>(1));
    const std::vector<float> w(static_cast<size_t>(cols), 2.0f);
    this->for_each_isa([&](const TypedKernels<T>& k) {
      std::vector<T> y(x.size()), dx(x.size());
      std::vector<float> mean(2), rstd(2), dw(w.size(), 0.0f), db(w.size(), 0.0f);
      k.rms_norm(x.data(), w.data(), y.data(), rstd.data(), 2, cols, 1e-6f);
      for (T v : y) ASSERT_EQ(to_float(v), 0.0f);
      ASSERT_NEAR(rstd[0], 1000.0f, 1e-3f);
      k.rms_norm_backward(dy.data(), x.data(), w.data(), rstd.data(), dx.data(), dw.data(), 2, cols);
      for (T v : dx) ASSERT_NEAR(to_float(v), 2000.0f, sizeof(T) == 4 ? 1e-2f : 8.0f);
      for (float v : dw) ASSERT_EQ(v, 0.0f);
      k.layer_norm(x.data(), w.data(), nullptr, y.data(), mean.data(), rstd.data(), 2, cols, 1e-6f);
      for (T v : y) ASSERT_EQ(to_float(v), 0.0f);
      k.layer_norm_backward(dy.data(), x.data(), w.data(), mean.data(), rstd.data(), dx.data(), dw.data(), db.data(), 2, cols);
      for (T v : dx) ASSERT_NEAR(to_float(v), 0.0f, 1e-2f);  // a constant upstream moves nothing but the mean
    });
  }
}

TYPED_TEST(RowKernels, SoftmaxAndLogSoftmax) {
  using T = TypeParam;
  for (int64_t cols : sizes()) {
    SCOPED_TRACE(cols);
    const Doubles x = rounded<T>(normal_values(kRows * cols, 1, 3)), dy = rounded<T>(normal_values(kRows * cols, 2));
    const auto x_t = stored<T>(x), dy_t = stored<T>(dy);
    const Doubles y = reference::softmax(x, kRows, cols), log_y = reference::log_softmax(x, kRows, cols);
    this->for_each_isa([&](const TypedKernels<T>& k) {
      std::vector<T> out(x_t.size()), dx(x_t.size());
      k.softmax(x_t.data(), out.data(), kRows, cols);
      ASSERT_TRUE(near(widened(out), y, kRounding<T> + 2e-6, 0));
      std::vector<T> in_place = x_t;
      k.softmax(in_place.data(), in_place.data(), kRows, cols);
      ASSERT_TRUE(same_bits(in_place, out));
      k.softmax_backward(out.data(), dy_t.data(), dx.data(), kRows, cols);
      ASSERT_TRUE(near(widened(dx), reference::softmax_gradient(widened(out), dy, kRows, cols), kRounding<T> + 1e-6, 1e-6));
      k.log_softmax(x_t.data(), out.data(), kRows, cols);
      ASSERT_TRUE(near(widened(out), log_y, kRounding<T> + 1e-6, 1e-6));
      k.log_softmax_backward(out.data(), dy_t.data(), dx.data(), kRows, cols);
      const Doubles expected = reference::log_softmax_gradient(widened(out), dy, kRows, cols);
      ASSERT_TRUE(near(widened(dx), expected, kRounding<T> + 1e-6, 1e-6 * std::sqrt(static_cast<double>(cols))));
    });
  }
}

TYPED_TEST(RowKernels, SoftmaxOfExtremesAndNan) {
  using T = TypeParam;
  for (int64_t cols : {1, 2, 9, 40}) {
    this->for_each_isa([&](const TypedKernels<T>& k) {
      std::vector<T> x(static_cast<size_t>(cols), from_float<T>(-INFINITY)), y(x.size());
      x.back() = from_float<T>(1e4f);
      k.softmax(x.data(), y.data(), 1, cols);
      for (int64_t c = 0; c < cols; ++c) ASSERT_EQ(to_float(y[static_cast<size_t>(c)]), c + 1 == cols ? 1.0f : 0.0f);
      for (int64_t poisoned : {int64_t{0}, cols / 2, cols - 1}) {
        std::vector<T> bad(static_cast<size_t>(cols), from_float<T>(1));
        bad[static_cast<size_t>(poisoned)] = from_float<T>(NAN);
        k.softmax(bad.data(), y.data(), 1, cols);
        for (T v : y) ASSERT_TRUE(std::isnan(to_float(v))) << cols << ", NaN at " << poisoned;
        k.log_softmax(bad.data(), y.data(), 1, cols);
        for (T v : y) ASSERT_TRUE(std::isnan(to_float(v))) << cols << ", NaN at " << poisoned;
      }
    });
  }
}

}  // namespace
}  // namespace qkv::test
