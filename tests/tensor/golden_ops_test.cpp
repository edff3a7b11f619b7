// Reference vectors of norms, activations, losses, AdamW and gradient clipping, computed by PyTorch in double precision.
#include "tests/support/golden_safetensors.h"
#include "tests/support/test_paths.h"
#include "tests/tensor/tensor_testing.h"

namespace qkv::test {
namespace {

const GoldenSafetensors& file() {
  static const GoldenSafetensors instance(golden("ops/ops.safetensors"));
  return instance;
}

Tensor load(const std::string& name) {
  const std::vector<int64_t> dims = file().shape(name);
  return tensor_of(file().values(name), dims.empty() ? Shape{1} : Shape(dims));
}

Tensor load_leaf(const std::string& name) { return load(name).set_requires_grad(true); }

void expect_golden(const Tensor& actual, const std::string& name, double tolerance = 2e-6) {
  EXPECT_TRUE(close(actual, file().values(name), tolerance)) << name;
}

void check_unary(const std::string& name, const std::function<Tensor(const Tensor&)>& op) {
  const Tensor x = load_leaf(name + ".x");
  const Tensor y = op(x);
  expect_golden(y, name + ".out");
  backward(y, load(name + ".dout"));
  expect_golden(x.grad(), name + ".dx");
}

TEST(GoldenOps, Activations) {
  for (const auto& [name, kind] : std::vector<std::pair<const char*, Activation>>{{"gelu_erf", Activation::gelu_erf},
                                                                                  {"gelu_tanh", Activation::gelu_tanh},
                                                                                  {"silu", Activation::silu},
                                                                                  {"quick_gelu", Activation::quick_gelu},
                                                                                  {"relu2", Activation::relu2}}) {
    check_unary(name, [kind = kind](const Tensor& x) { return ops::activation(x, kind); });
  }
}

TEST(GoldenOps, Softmax) {
  check_unary("softmax", [](const Tensor& x) { return ops::softmax(x); });
  check_unary("log_softmax", [](const Tensor& x) { return ops::log_softmax(x); });
}

TEST(GoldenOps, Norms) {
  const Tensor w = load_leaf("rmsnorm.w");
  check_unary("rmsnorm", [&](const Tensor& x) { return ops::rms_norm(x, w, 1e-6f); });
  expect_golden(w.grad(), "rmsnorm.dw");
  const Tensor lw = load_leaf("layernorm.w"), lb = load_leaf("layernorm.b");
  check_unary("layernorm", [&](const Tensor& x) { return ops::layer_norm(x, lw, lb, 1e-5f); });
  expect_golden(lw.grad(), "layernorm.dw");
  expect_golden(lb.grad(), "layernorm.db");
}

TEST(GoldenOps, Gated) {
  for (const auto& [name, kind] :
       std::vector<std::pair<std::string, Activation>>{{"swiglu", Activation::silu}, {"geglu_tanh", Activation::gelu_tanh}}) {
    const Tensor gate = load_leaf(name + ".gate"), up = load_leaf(name + ".up");
    const Tensor y = ops::gated(gate, up, kind);
    expect_golden(y, name + ".out");
    backward(y, load(name + ".dout"));
    expect_golden(gate.grad(), name + ".dgate");
    expect_golden(up.grad(), name + ".dup");
  }
}

TEST(GoldenOps, CrossEntropy) {
  struct Case {
    std::string name;
    float label_smoothing, z_loss;
    bool mean;
  };
  for (const Case& c : {Case{"cross_entropy", 0, 0, true}, Case{"cross_entropy_ls0.1", 0.1f, 0, true}, Case{"cross_entropy_sum", 0, 0, false},
                        Case{"cross_entropy_zloss1e-4", 0, 1e-4f, true}}) {
    SCOPED_TRACE(c.name);
    const Doubles ids = file().values(c.name + ".y");
    const std::vector<int32_t> targets(ids.begin(), ids.end());
    const auto counted = std::count_if(targets.begin(), targets.end(), [](int32_t t) { return t != ops::kIgnore; });
    const float divisor = c.mean ? static_cast<float>(counted) : 1.0f;
    ops::CrossEntropyOptions options;
    options.label_smoothing = c.label_smoothing;
    options.z_loss = c.z_loss;
    const Tensor x = load_leaf(c.name + ".x");
    const Tensor loss = ops::scale(ops::cross_entropy(x, targets, options), 1 / divisor);
    expect_golden(loss, c.name + ".out");
    backward(loss, load(c.name + ".dout"));
    expect_golden(x.grad(), c.name + ".dx");
    // The same through the chunked form with an identity for the vocabulary matrix.
    const int64_t vocabulary = x.cols();
    Doubles identity(static_cast<size_t>(vocabulary * vocabulary), 0.0);
    for (int64_t i = 0; i < vocabulary; ++i) identity[reference::at(i, vocabulary, i)] = 1;
    const Tensor h = load_leaf(c.name + ".x");
    options.chunk_rows = 4;
    const Tensor chunked = ops::scale(ops::linear_cross_entropy(h, tensor_of(identity, {vocabulary, vocabulary}), targets, options), 1 / divisor);
    expect_golden(chunked, c.name + ".out");
    backward(chunked, load(c.name + ".dout"));
    expect_golden(h.grad(), c.name + ".dx");
  }
}

TEST(GoldenOps, AdamW) {
  Tensor p = load("optim.p0");
  const Doubles gradients = file().values("optim.grads"), expected = file().values("optim.adamw");
  const int64_t n = p.elements();
  std::vector<float> m(static_cast<size_t>(n), 0.0f), v(m);
  for (int t = 1; t <= 6; ++t) {
    const auto part = [&](const Doubles& all) { return Doubles(all.begin() + (t - 1) * n, all.begin() + t * n); };
    const Tensor g = tensor_of(part(gradients), {n});
    const AdamWStep step{0.01f, 0.9f, 0.95f, 1e-8f, 0.1f, static_cast<float>(1 - std::pow(0.9, t)), static_cast<float>(1 - std::pow(0.95, t)), 1.0f};
    kernels().adamw(step, p.data<float>(), g.data<float>(), m.data(), v.data(), n);
    ASSERT_TRUE(close(p, part(expected), 1e-6)) << "step " << t;
  }
}

TEST(GoldenOps, ClippingByTheGlobalNorm) {
  const Doubles first = file().values("optim.grads");
  Tensor g0 = tensor_of(Doubles(first.begin(), first.begin() + 35), {35}), g1 = load("clip.g1");
  const double norm = std::sqrt(kernels().sum_of_squares(g0.data<float>(), 35) + kernels().sum_of_squares(g1.data<float>(), 3));
  EXPECT_NEAR(norm, file().values("clip.total_norm")[0], 1e-6 * norm);
  const auto factor = static_cast<float>(1 / (norm + 1e-6));
  expect_golden(ops::scale(g0, factor), "clip.clipped_g0");
  expect_golden(ops::scale(g1, factor), "clip.clipped_g1");
}

}  // namespace
}  // namespace qkv::test
