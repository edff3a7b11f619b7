// The same seed gives the same bits, and where ops promise it for any number of threads; dropout's statistics.
#include "qkv/core/parallel.h"
#include "tests/tensor/tensor_testing.h"

namespace qkv::test {
namespace {

class Threads {
 public:
  explicit Threads(int n) : before_(num_threads()) { set_num_threads(n); }
  ~Threads() { set_num_threads(before_); }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

 private:
  int before_;
};

// Outputs and gradients of `op` on leaves of these shapes.
std::vector<Tensor> run(const std::vector<Shape>& shapes, const std::function<Tensor(const std::vector<Tensor>&)>& op) {
  std::vector<Tensor> leaves;
  for (size_t i = 0; i < shapes.size(); ++i) leaves.push_back(random_leaf(shapes[i], i + 1));
  const Tensor y = op(leaves);
  backward(y, random_tensor(y.shape(), 50, y.dtype()));
  std::vector<Tensor> results = {y};
  for (const Tensor& leaf : leaves) results.push_back(leaf.grad());
  return results;
}

struct Case {
  const char* name;
  std::vector<Shape> shapes;
  std::function<Tensor(const std::vector<Tensor>&)> op;
};

std::vector<Case> independent_of_threads() {
  const auto ids = [] {
    Rng rng(3);
    std::vector<int32_t> list;
    for (int i = 0; i < 999; ++i) list.push_back(static_cast<int32_t>(rng.below(50)));
    return list;
  }();
  return {
      {"rms_norm", {{999, 130}, {130}}, [](const auto& in) { return ops::rms_norm(in[0], in[1], 1e-5f); }},
      {"layer_norm", {{999, 130}, {130}, {130}}, [](const auto& in) { return ops::layer_norm(in[0], in[1], in[2], 1e-5f); }},
      {"embedding", {{50, 130}}, [ids](const auto& in) { return ops::embedding(ids, in[0]); }},
      {"softmax", {{999, 130}}, [](const auto& in) { return ops::softmax(in[0]); }},
      {"gated", {{999, 130}, {999, 130}}, [](const auto& in) { return ops::gated(in[0], in[1], Activation::silu); }},
      {"dropout", {{999, 130}}, [](const auto& in) { return ops::dropout(in[0], 0.3f, 7, 8); }},
      {"select_rows", {{50, 130}}, [](const auto& in) { return ops::select_rows(in[0], {1, 1, 1, 4, 1}); }},
      {"sum", {{999, 130}}, [](const auto& in) { return ops::sum(in[0]); }},
  };
}

TEST(Determinism, NormsAndEmbeddingsAreTheSameForAnyNumberOfThreads) {
  for (const Case& c : independent_of_threads()) {
    std::vector<Tensor> first;
    for (int threads : {1, 2, 3, 7}) {
      const Threads set(threads);
      const std::vector<Tensor> results = run(c.shapes, c.op);
      if (first.empty()) first = results;
      for (size_t i = 0; i < results.size(); ++i) {
        EXPECT_TRUE(same_bits(first[i], results[i])) << c.name << ", " << threads << " threads, result " << i;
      }
    }
  }
}

TEST(Determinism, TheBiasGradientIsTheSameForAnyNumberOfThreads) {
  Tensor first;
  for (int threads : {1, 2, 5}) {
    const Threads set(threads);
    const Tensor x = random_tensor({999, 4}, 1), w = random_leaf({70, 4}, 2), bias = random_leaf({70}, 3);
    backward(ops::linear(x, w, bias), random_tensor({999, 70}, 4));
    if (!first.defined()) first = bias.grad();
    EXPECT_TRUE(same_bits(first, bias.grad())) << threads;
  }
}

TEST(Determinism, TwoRunsGiveTheSameBits) {
  AttentionSpec spec;
  spec.n_heads = 4;
  spec.n_kv_heads = 2;
  spec.qk_dim = spec.v_dim = 16;
  spec.scale = 0.25f;
  Rng rng(9);
  std::vector<int32_t> targets;
  for (int i = 0; i < 200; ++i) targets.push_back(static_cast<int32_t>(rng.below(301)));
  const auto model = [&](const std::vector<Tensor>& in) {
    const Tensor qkv = ops::linear(in[0], in[1], in[2]);
    const Tensor mixed = ops::attention(ops::slice_cols(qkv, 0, 64), ops::slice_cols(qkv, 64, 96), ops::slice_cols(qkv, 96, 128), {{0, 60, 200}}, spec);
    return ops::linear_cross_entropy(mixed, in[3], targets);
  };
  for (int threads : {1, 2}) {
    const Threads set(threads);
    const auto once = run({{200, 48}, {128, 48}, {128}, {301, 64}}, model);
    for (int again = 0; again < 3; ++again) {
      const auto results = run({{200, 48}, {128, 48}, {128}, {301, 64}}, model);
      for (size_t i = 0; i < results.size(); ++i) EXPECT_TRUE(same_bits(once[i], results[i])) << threads << " threads, result " << i;
    }
  }
}

TEST(Dropout, KeepsTheRightShareAndTheMean) {
  const int64_t n = 400000;
  for (float p : {0.05f, 0.5f, 0.9f}) {
    const Tensor y = ops::dropout(Tensor::full({n}, 1.0f), p, 1, 2);
    double kept = 0, total = 0;
    for (float v : y.to_floats()) {
      kept += v != 0 ? 1 : 0;
      total += static_cast<double>(v);
      if (v != 0) {
        ASSERT_FLOAT_EQ(v, 1 / (1 - p));
      }
    }
    const double q = 1 - static_cast<double>(p), sigma = std::sqrt(q * (1 - q) * static_cast<double>(n));
    EXPECT_NEAR(kept, q * static_cast<double>(n), 5 * sigma) << p;
    EXPECT_NEAR(total / static_cast<double>(n), 1, 5 * sigma / q / static_cast<double>(n)) << p;
  }
}

TEST(Dropout, TheMaskIsAFunctionOfSeedAndStreamAndTheBackwardUsesIt) {
  const Tensor x = Tensor::full({1000, 33}, 1.0f).set_requires_grad(true);
  const Tensor a = ops::dropout(x, 0.3f, 1, 2);
  EXPECT_TRUE(same_bits(a, ops::dropout(x, 0.3f, 1, 2)));
  EXPECT_FALSE(same_bits(a, ops::dropout(x, 0.3f, 1, 3)));
  EXPECT_FALSE(same_bits(a, ops::dropout(x, 0.3f, 2, 2)));
  backward(a, Tensor::full({1000, 33}, 1.0f));
  EXPECT_TRUE(same_bits(a, x.grad())) << "ones through the mask are the mask, both ways";
  EXPECT_TRUE(ops::dropout(x, 0, 1, 2).is_same(x));
}

TEST(Dropout, NeighboursAreIndependent) {
  const int64_t n = 200000;
  const std::vector<float> y = ops::dropout(Tensor::full({n}, 1.0f), 0.5f, 3, 4).to_floats();
  for (size_t lag : {size_t{1}, size_t{2}, size_t{4}, size_t{33}}) {
    double both = 0;
    for (size_t i = 0; i + lag < y.size(); ++i) both += y[i] != 0 && y[i + lag] != 0 ? 1 : 0;
    EXPECT_NEAR(both / static_cast<double>(n), 0.25, 0.005) << lag;
  }
}

}  // namespace
}  // namespace qkv::test
