// Products, elementwise ops and ops that move data: forward and every gradient against the reference, in f32 and bf16.
#include "tests/tensor/tensor_testing.h"

namespace qkv::test {
namespace {

using Inputs = std::vector<Tensor>;
using Values = std::vector<Doubles>;

void add_products(std::vector<OpCase>& cases) {
  for (const auto& [t, k, n] : std::vector<std::array<int64_t, 3>>{{1, 1, 1}, {3, 7, 5}, {9, 33, 17}, {4, 16, 3}}) {
    const std::string size = std::to_string(t) + "x" + std::to_string(k) + "x" + std::to_string(n);
    cases.push_back({"linear_" + size, {{{t, k}}, {{n, k}, false}},
                     [](const Inputs& in) { return ops::linear(in[0], in[1]); },
                     [=](const Values& v) { return reference::linear(v[0], v[1], {}, t, n, k); }, 1e-5});
    cases.push_back({"linear_bias_" + size, {{{t, k}}, {{n, k}, false}, {{n}, false}},
                     [](const Inputs& in) { return ops::linear(in[0], in[1], in[2]); },
                     [=](const Values& v) { return reference::linear(v[0], v[1], v[2], t, n, k); }, 1e-5});
    for (bool ta : {false, true}) {
      for (bool tb : {false, true}) {
        cases.push_back({"matmul_" + size + (ta ? "_at" : "") + (tb ? "_bt" : ""),
                         {{ta ? Shape{k, t} : Shape{t, k}}, {tb ? Shape{n, k} : Shape{k, n}}},
                         [=](const Inputs& in) { return ops::matmul(in[0], in[1], ta, tb); },
                         [=](const Values& v) { return reference::matmul(v[0], v[1], t, n, k, ta, tb); }, 1e-5});
      }
    }
  }
}

void add_elementwise(std::vector<OpCase>& cases) {
  for (const Shape& shape : {Shape{1}, Shape{5, 7}, Shape{2, 3, 11}}) {
    const std::string size = "_" + std::to_string(shape.elements());
    cases.push_back({"add" + size, {{shape}, {shape}}, [](const Inputs& in) { return ops::add(in[0], in[1]); },
                     [](const Values& v) { return reference::map<double>([](double a, double b) { return a + b; }, v[0], v[1]); }});
    cases.push_back({"multiply" + size, {{shape}, {shape}}, [](const Inputs& in) { return ops::multiply(in[0], in[1]); },
                     [](const Values& v) { return reference::map<double>([](double a, double b) { return a * b; }, v[0], v[1]); }});
    cases.push_back({"scale" + size, {{shape}}, [](const Inputs& in) { return ops::scale(in[0], -0.75f); },
                     [](const Values& v) { return reference::map<double>([](double a) { return -0.75 * a; }, v[0]); }});
    cases.push_back({"clamp" + size, {{shape}}, [](const Inputs& in) { return ops::clamp(in[0], 0.8f); },
                     [](const Values& v) { return reference::map<double>([](double a) { return std::clamp(a, -double{0.8f}, double{0.8f}); }, v[0]); }});
    cases.push_back({"softcap" + size, {{shape, true, 3}}, [](const Inputs& in) { return ops::softcap(in[0], 2); },
                     [](const Values& v) { return reference::map<double>([](double a) { return 2 * std::tanh(a / 2); }, v[0]); }});
    cases.push_back({"dropout" + size, {{shape}}, [](const Inputs& in) { return ops::dropout(in[0], 0.4f, 5, 6); },
                     [](const Values& v) {
                       Doubles y = v[0];
                       for (size_t i = 0; i < y.size(); ++i) y[i] *= reference::dropout_factor(0.4f, 5, 6, i);
                       return y;
                     }});
    for (auto kind : {Activation::silu, Activation::gelu_erf, Activation::gelu_tanh, Activation::quick_gelu, Activation::relu, Activation::relu2,
                      Activation::sigmoid}) {
      const std::string label = std::to_string(static_cast<int>(kind)) + size;
      cases.push_back({"activation_" + label, {{shape, true, 2}}, [=](const Inputs& in) { return ops::activation(in[0], kind); },
                       [=](const Values& v) { return reference::map<double>([=](double x) { return reference::activation(kind, x); }, v[0]); }});
      cases.push_back({"gated_" + label, {{shape, true, 2}, {shape}}, [=](const Inputs& in) { return ops::gated(in[0], in[1], kind); },
                       [=](const Values& v) { return reference::gated(kind, v[0], v[1]); }});
    }
  }
  cases.push_back({"cast_to_f32", {{{3, 5}}}, [](const Inputs& in) { return ops::cast(in[0], DType::f32); }, [](const Values& v) { return v[0]; }});
}

void add_moves(std::vector<OpCase>& cases) {
  const Shape shape{5, 9};
  cases.push_back({"reshape", {{shape}}, [](const Inputs& in) { return ops::reshape(in[0], {3, 15}); }, [](const Values& v) { return v[0]; }});
  cases.push_back({"slice_rows", {{shape}}, [](const Inputs& in) { return ops::slice_rows(in[0], 1, 4); },
                   [](const Values& v) { return Doubles(v[0].begin() + 9, v[0].begin() + 36); }});
  cases.push_back({"slice_cols", {{shape}}, [](const Inputs& in) { return ops::slice_cols(in[0], 2, 7); },
                   [](const Values& v) { return reference::slice_cols(v[0], 5, 9, 2, 7); }});
  cases.push_back({"concat_rows", {{{2, 9}}, {{1, 9}}, {shape}},
                   [](const Inputs& in) { return ops::concat_rows({in[0], in[1], in[2]}); },
                   [](const Values& v) {
                     Doubles y = v[0];
                     y.insert(y.end(), v[1].begin(), v[1].end());
                     y.insert(y.end(), v[2].begin(), v[2].end());
                     return y;
                   }});
  cases.push_back({"concat_cols", {{shape}, {{5, 3}}}, [](const Inputs& in) { return ops::concat_cols({in[0], in[1]}); },
                   [](const Values& v) { return reference::concat_cols(v[0], 9, v[1], 3, 5); }});
  cases.push_back({"select_rows", {{shape}}, [](const Inputs& in) { return ops::select_rows(in[0], {4, 0, 4, 2}); },
                   [](const Values& v) { return reference::embedding(std::vector<int64_t>{4, 0, 4, 2}, v[0], 9); }});
  cases.push_back({"embedding", {{{6, 9}, false}}, [](const Inputs& in) { return ops::embedding({5, 1, 5, 0}, in[0]); },
                   [](const Values& v) { return reference::embedding(std::vector<int32_t>{5, 1, 5, 0}, v[0], 9); }});
  cases.push_back({"embedding_of_activations", {{{6, 9}}}, [](const Inputs& in) { return ops::embedding({5, 1, 5, 0}, in[0], in[0].dtype()); },
                   [](const Values& v) { return reference::embedding(std::vector<int32_t>{5, 1, 5, 0}, v[0], 9); }});
  cases.push_back({"gather_cols", {{shape}}, [](const Inputs& in) { return ops::gather_cols(in[0], {8, 0, 3, 3, 7}); },
                   [](const Values& v) { return Doubles{v[0][8], v[0][9], v[0][21], v[0][30], v[0][43]}; }});
  cases.push_back({"sum", {{shape}}, [](const Inputs& in) { return ops::sum(in[0]); },
                   [](const Values& v) { return Doubles{reference::inner(v[0], Doubles(v[0].size(), 1.0))}; }});
  cases.push_back({"mean", {{shape}}, [](const Inputs& in) { return ops::mean(in[0]); },
                   [](const Values& v) { return Doubles{reference::inner(v[0], Doubles(v[0].size(), 1.0 / 45))}; }});
  // Views: the gradients that reach `x` along three ways share memory with what they came from.
  cases.push_back({"views_that_meet", {{shape}},
                   [](const Inputs& in) {
                     const Tensor flat = ops::reshape(in[0], {45});
                     return ops::add(ops::reshape(ops::add(flat, flat), {5, 9}), ops::add(in[0], in[0]));
                   },
                   [](const Values& v) { return reference::map<double>([](double a) { return 4 * a; }, v[0]); }});
  cases.push_back({"overlapping_slices", {{shape}},
                   [](const Inputs& in) {
                     return ops::concat_rows({ops::slice_rows(in[0], 0, 3), ops::slice_rows(in[0], 2, 5), ops::slice_rows(in[0], 2, 3)});
                   },
                   [](const Values& v) { return reference::embedding(std::vector<int64_t>{0, 1, 2, 2, 3, 4, 2}, v[0], 9); }});
}

std::vector<OpCase> all_cases() {
  std::vector<OpCase> cases;
  add_products(cases);
  add_elementwise(cases);
  add_moves(cases);
  return cases;
}

class ProductsAndMoves : public ::testing::TestWithParam<OpCase> {};
TEST_P(ProductsAndMoves, MatchTheReferenceInF32) { check_op(GetParam(), Entry::f32_leaf); }
TEST_P(ProductsAndMoves, MatchTheReferenceInBf16) { check_op(GetParam(), Entry::bf16_inner); }
TEST_P(ProductsAndMoves, MatchTheReferenceFromBf16Leaves) { check_op(GetParam(), Entry::bf16_leaf); }
INSTANTIATE_TEST_SUITE_P(Ops, ProductsAndMoves, ::testing::ValuesIn(all_cases()), [](const auto& info) { return info.param.name; });

TEST(GgmlGelu, RoundsToSixteenBitsGoingInAndComingOut) {
  // 1.0004 lies between the 16-bit floats 1 and 1 + 2^-10; gelu_tanh(1) = 0.841192 becomes 0.841309.
  const Tensor y = ops::ggml_gelu(tensor_of({1.0004, -3, 0}, {3}));
  EXPECT_EQ(y.data<float>()[0], 0.84130859375f);
  EXPECT_NEAR(y.data<float>()[1], -0.0036373, 2e-6);
  EXPECT_EQ(y.data<float>()[2], 0.0f);
  EXPECT_THROW(ops::ggml_gelu(random_leaf({3}, 1)), Error);
}

TEST(ProductsAndMovesErrors, SayWhatDoesNotFit) {
  const Tensor a = random_tensor({3, 4}, 1), b = random_tensor({4, 3}, 2);
  EXPECT_THROW(ops::add(a, b), Error);
  EXPECT_THROW(ops::add(a, a.to(DType::bf16)), Error);
  EXPECT_THROW(ops::multiply(a, b), Error);
  EXPECT_THROW(ops::linear(a, b), Error);
  EXPECT_THROW(ops::linear(a, a, random_tensor({4}, 3)), Error);
  EXPECT_THROW(ops::matmul(a, a), Error);
  EXPECT_THROW(ops::gated(a, b, Activation::silu), Error);
  EXPECT_THROW(ops::dropout(a, 1.0f, 0, 0), Error);
  EXPECT_THROW(ops::dropout(a, NAN, 0, 0), Error);
  EXPECT_THROW(ops::reshape(a, {5}), Error);
  EXPECT_THROW(ops::slice_rows(a, 2, 4), Error);
  EXPECT_THROW(ops::slice_cols(a, 3, 2), Error);
  EXPECT_THROW(ops::concat_rows({a, b}), Error);
  EXPECT_THROW(ops::concat_cols({a, b}), Error);
  EXPECT_THROW(ops::concat_rows({}), Error);
  EXPECT_THROW(ops::select_rows(a, {3}), Error);
  EXPECT_THROW(ops::gather_cols(a, {0, 1}), Error);
  EXPECT_THROW(ops::gather_cols(a, {0, 1, 4}), Error);
  EXPECT_THROW(ops::mean(Tensor::empty({0})), Error);
  EXPECT_THROW(ops::add(Tensor(), a), Error);
  try {
    ops::embedding({1, 7}, a);
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "embedding: token 1: expected an id below 3, found 7");
  }
  EXPECT_THROW(ops::embedding({-1}, a), Error);
}

TEST(ProductsAndMovesErrors, EmptyBatchesPassThrough) {
  const Tensor w = random_leaf({3, 4}, 1), bias = random_leaf({3}, 2);
  const Tensor x = Tensor::empty({0, 4}).set_requires_grad(true);
  const Tensor y = ops::linear(x, w, bias);
  EXPECT_EQ(y.shape(), Shape({0, 3}));
  backward(ops::sum(y));
  EXPECT_EQ(values_of(w.grad()), Doubles(12, 0.0));
  EXPECT_EQ(values_of(bias.grad()), Doubles(3, 0.0));
}

}  // namespace
}  // namespace qkv::test
