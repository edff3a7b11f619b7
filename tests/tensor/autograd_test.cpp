// The tape: accumulation, shared gradients, recomputation, checkpoints, gradient mode and misuse.
#include <thread>

#include "tests/tensor/tensor_testing.h"

namespace qkv::test {
namespace {

TEST(Autograd, ATensorUsedTwiceGetsBothGradients) {
  const Tensor x = random_leaf({3, 5}, 1);
  backward(ops::sum(ops::add(x, x)));
  EXPECT_EQ(values_of(x.grad()), Doubles(15, 2.0));

  const Tensor a = random_leaf({4, 4}, 2);
  backward(ops::sum(ops::matmul(a, a)));
  const Doubles v = values_of(a);
  const auto product = [](const Doubles& at) { return reference::inner(reference::matmul(at, at, 4, 4, 4), Doubles(16, 1.0)); };
  EXPECT_TRUE(close(a.grad(), reference::finite_difference<double>(product, v), 1e-5));

  const Tensor b = random_leaf({4, 4}, 3);  // as both the input and the weight of a product that writes gradients in place
  backward(ops::sum(ops::linear(b, b)));
  const auto square = [](const Doubles& at) { return reference::inner(reference::matmul(at, at, 4, 4, 4, false, true), Doubles(16, 1.0)); };
  EXPECT_TRUE(close(b.grad(), reference::finite_difference<double>(square, values_of(b)), 1e-5));
}

TEST(Autograd, GradientsOfSeveralBackwardsAddUp) {
  const Tensor w = random_leaf({3, 4}, 1), x = random_tensor({5, 4}, 2);
  backward(ops::sum(ops::linear(x, w)));
  const Doubles once = values_of(w.grad());
  const Tensor held = w.grad();  // somebody keeps the first gradient: it must not change
  backward(ops::sum(ops::linear(x, w)));
  EXPECT_EQ(values_of(held), once);
  EXPECT_TRUE(close(w.grad(), reference::map<double>([](double g) { return 2 * g; }, once), 1e-6));
}

// One upstream gradient goes to several inputs; what is then accumulated in place for one must not reach the others.
TEST(Autograd, SharedUpstreamIsNotWrittenTo) {
  const Tensor x = random_leaf({6, 4}, 1), y = random_leaf({6, 4}, 2), w = random_leaf({4, 4}, 3);
  const Tensor a = ops::scale(x, 1.0f), b = ops::scale(y, 1.0f);
  const Tensor hidden = ops::linear(a, w);         // adds its gradient to a's in place
  const Tensor sum = ops::add(a, b);               // gives a and b the same tensor, before
  const Tensor out = ops::add(ops::reshape(sum, {6, 4}), hidden);
  const Tensor upstream = random_tensor({6, 4}, 4);
  const Doubles before = values_of(upstream);
  backward(out, upstream);
  EXPECT_EQ(values_of(upstream), before);
  EXPECT_EQ(values_of(y.grad()), before);
  Doubles expected = reference::matmul(before, values_of(w), 6, 4, 4);
  for (size_t i = 0; i < expected.size(); ++i) expected[i] += before[i];
  EXPECT_TRUE(close(x.grad(), expected, 1e-5));
}

TEST(Autograd, LeavesNeverShareTheirGradientsMemory) {
  const Tensor x = random_leaf({2, 3}, 1), y = random_leaf({2, 3}, 2), z = random_leaf({3, 2}, 3);
  const Tensor upstream = Tensor::full({2, 3}, 1.0f);
  backward(ops::add(ops::add(x, y), ops::reshape(z, {2, 3})), upstream);
  x.grad().fill(7);
  EXPECT_EQ(values_of(y.grad()), Doubles(6, 1.0));
  EXPECT_EQ(values_of(z.grad()), Doubles(6, 1.0));
  EXPECT_EQ(values_of(upstream), Doubles(6, 1.0));
}

TEST(Autograd, TiedEmbeddingAndHead) {
  const int64_t vocabulary = 11, channels = 6;
  const std::vector<int32_t> ids = {3, 0, 3, 10, 7}, targets = {0, 3, 10, 7, 7};
  for (DType type : {DType::f32, DType::bf16}) {
    const Tensor table = random_leaf({vocabulary, channels}, 1, DType::f32, 0.5);
    const Tensor loss = ops::linear_cross_entropy(ops::embedding(ids, table, type), table, targets);
    backward(loss);
    const auto f = [&](const Doubles& at) {
      const Doubles logits = reference::linear(reference::embedding(ids, at, channels), at, {}, 5, vocabulary, channels);
      return reference::cross_entropy(logits, vocabulary, targets, {});
    };
    const double tolerance = type == DType::f32 ? 1e-5 : 0x1p-6;
    EXPECT_TRUE(close(loss, {f(values_of(table))}, tolerance));
    EXPECT_TRUE(close(table.grad(), reference::finite_difference<double>(f, values_of(table)), tolerance));
  }
}

TEST(Autograd, OnlyWhatNeedsAGradientGetsOne) {
  const Tensor x = random_tensor({5, 4}, 1), w = random_leaf({3, 4}, 2), b = random_tensor({3}, 3), unused = random_leaf({3, 4}, 4);
  backward(ops::sum(ops::linear(x, w, b)));
  EXPECT_TRUE(w.grad().defined());
  EXPECT_FALSE(x.grad().defined());
  EXPECT_FALSE(b.grad().defined());
  EXPECT_FALSE(unused.grad().defined());
}

TEST(Autograd, ADeadBranchIsNotWalked) {
  const Tensor x = random_leaf({4, 4}, 1), w = random_leaf({4, 4}, 2);
  const Tensor y = ops::rms_norm(x, {}, 1e-5f);
  const Tensor unused = ops::linear(y, w);
  backward(ops::sum(ops::linear(y, random_tensor({4, 4}, 3))));
  EXPECT_FALSE(w.grad().defined());
  EXPECT_TRUE(x.grad().defined());
}

TEST(Autograd, NoGradRecordsNothing) {
  const Tensor x = random_leaf({5, 4}, 1), w = random_leaf({3, 4}, 2);
  {
    const NoGrad off;
    EXPECT_FALSE(gradient_mode());
    EXPECT_FALSE(recording({x}));
    {
      const NoGrad nested;
    }
    EXPECT_FALSE(gradient_mode());
    const Tensor y = ops::linear(x, w);
    EXPECT_EQ(y.node(), nullptr);
    EXPECT_FALSE(y.tracks_gradient());
    EXPECT_THROW(backward(ops::sum(y)), Error);
  }
  EXPECT_TRUE(gradient_mode());
  EXPECT_NE(ops::linear(x, w).node(), nullptr);
  EXPECT_EQ(ops::linear(x.detach(), w.detach()).node(), nullptr);
}

TEST(Autograd, MisuseIsAnError) {
  const Tensor x = random_leaf({2, 3}, 1);
  const Tensor y = ops::scale(x, 2), loss = ops::sum(y);
  EXPECT_THROW(backward(y), Error) << "more than one element and no gradient";
  EXPECT_THROW(backward(y, random_tensor({3, 2}, 1)), Error);
  EXPECT_THROW(backward(random_tensor({1}, 1)), Error);
  backward(loss);
  const Doubles once = values_of(x.grad());
  EXPECT_THROW(backward(loss), Error) << "backward twice";
  EXPECT_THROW(backward(ops::sum(y)), Error) << "a new loss on a consumed tape";
  EXPECT_EQ(values_of(x.grad()), once);
}

TEST(Autograd, ALeafIsItsOwnGradient) {
  const Tensor x = random_leaf({1}, 1);
  backward(x);
  backward(x);
  EXPECT_EQ(x.grad().item(), 2.0f);
}

TEST(Autograd, ANodeWithSeveralOutputs) {
  const Tensor x = random_leaf({4}, 1);
  Tensor a = x.clone(), b = x.clone(), c = x.clone();
  record("three", {x}, {&a, &b, &c}, [] {
    return [](const std::vector<Tensor>& grads, GradientSink& sink) {
      EXPECT_TRUE(grads[0].defined());
      EXPECT_FALSE(grads[1].defined()) << "an output that did not contribute";
      sink.add(0, grads[0]);
      sink.add(0, grads[2]);
    };
  });
  backward(ops::sum(ops::add(a, ops::scale(c, 3))));
  EXPECT_EQ(values_of(x.grad()), Doubles(4, 4.0));
}

TEST(Autograd, AGradientOfTheWrongShapeIsAnError) {
  const Tensor x = random_leaf({4}, 1);
  Tensor y = x.clone();
  record("wrong", {x}, {&y}, [] {
    return [](const std::vector<Tensor>&, GradientSink& sink) { sink.add(0, Tensor::zeros({5})); };
  });
  EXPECT_THROW(backward(ops::sum(y)), Error);
}

TEST(Autograd, TapesOfSeveralThreadsJoin) {
  const Tensor x = random_leaf({8}, 1), y = random_leaf({8}, 2);
  Tensor left, right;
  std::thread([&] { left = ops::multiply(ops::scale(x, 2), x); }).join();
  std::thread([&] { right = ops::scale(ops::multiply(ops::scale(y, 3), y), 2); }).join();
  backward(ops::sum(ops::add(left, right)));
  EXPECT_TRUE(close(x.grad(), reference::map<double>([](double v) { return 4 * v; }, values_of(x)), 1e-6));
  EXPECT_TRUE(close(y.grad(), reference::map<double>([](double v) { return 12 * v; }, values_of(y)), 1e-6));
}

// A norm's output feeds several products and is made again once for all of them.
TEST(Recomputation, ANormUsedBySeveralProducts) {
  for (DType type : {DType::f32, DType::bf16}) {
    const Tensor x = random_leaf({5, 8}, 1), norm = random_leaf({8}, 2);
    const std::vector<Tensor> w = {random_leaf({4, 8}, 3), random_leaf({6, 8}, 4), random_leaf({3, 8}, 5)};
    const Tensor h = ops::rms_norm(ops::cast(x, type), norm, 1e-5f);
    const Tensor q = ops::linear(h, w[0]), k = ops::linear(h, w[1]), v = ops::linear(h, w[2]);
    const Tensor all = ops::concat_cols({q, k, v});
    const Tensor upstream = random_tensor({5, 13}, 6, type);
    backward(all, upstream);
    const auto f = [&](const Doubles& x_at, const Doubles& n_at, const Doubles& w1_at) {
      const Doubles hidden = reference::rms_norm(x_at, n_at, 5, 8, 1e-5);
      const auto part = [&](const Doubles& weight, int64_t n) { return reference::linear(hidden, weight, {}, 5, n, 8); };
      const Doubles qk = reference::concat_cols(part(values_of(w[0]), 4), 4, part(w1_at, 6), 6, 5);
      return reference::inner(reference::concat_cols(qk, 10, part(values_of(w[2]), 3), 3, 5), values_of(upstream));
    };
    const Doubles xv = values_of(x), nv = values_of(norm), wv = values_of(w[1]);
    const double tolerance = type == DType::f32 ? 1e-5 : 0x1p-6;
    EXPECT_TRUE(close(x.grad(), reference::finite_difference<double>([&](const Doubles& at) { return f(at, nv, wv); }, xv), tolerance));
    EXPECT_TRUE(close(norm.grad(), reference::finite_difference<double>([&](const Doubles& at) { return f(xv, at, wv); }, nv), tolerance));
    EXPECT_TRUE(close(w[1].grad(), reference::finite_difference<double>([&](const Doubles& at) { return f(xv, nv, at); }, wv), tolerance));
  }
}

TEST(Recomputation, HappensOnceForAllUsersAndDropsTheData) {
  const Tensor w1 = random_leaf({300, 300}, 1), w2 = random_leaf({300, 300}, 2);
  Tensor y = random_tensor({300, 300}, 3);
  const Tensor source = y.clone();
  int made = 0;
  set_recompute(y, [&made, source] {
    ++made;
    return source.clone();
  });
  const Tensor loss = ops::sum(ops::add(ops::linear(y, w1), ops::linear(y, w2)));
  const uint64_t with_y = memory_use().current;
  y = Tensor();
  EXPECT_EQ(memory_use().current + 300 * 300 * 4, with_y) << "the tape held the output although it can be made again";
  backward(loss);
  EXPECT_EQ(made, 1);
  EXPECT_TRUE(same_bits(w1.grad(), w2.grad()));
}

// A block like a transformer's: checkpointed or not, the same bits.
Tensor block(const std::vector<Tensor>& in, const Tensor& norm, const Tensor& up, const Tensor& down, const Tensor& side) {
  const Tensor h = ops::rms_norm(in[0], norm, 1e-5f);
  const Tensor wide = ops::linear(h, up);
  const Tensor mixed = ops::gated(ops::slice_cols(wide, 0, 12), ops::slice_cols(wide, 12, 24), Activation::silu);
  const Tensor out = ops::add(in[0], ops::dropout(ops::linear(mixed, down), 0.1f, 1, 2));
  return ops::add(out, ops::linear(in[0], side));  // a product straight from the input takes its type from it, too
}

TEST(Checkpoint, GivesTheSameBits) {
  for (DType type : {DType::f32, DType::bf16}) {
    for (bool leaf_input : {false, true}) {
      SCOPED_TRACE(::testing::Message() << name(type) << (leaf_input ? ", leaf input" : ", inner input"));
      std::vector<std::vector<Tensor>> gradients;
      std::vector<Tensor> outputs;
      for (bool checkpointed : {false, true}) {
        Tensor x = random_leaf({7, 16}, 1, leaf_input ? type : DType::f32);
        const Tensor norm = random_leaf({16}, 2), up = random_leaf({24, 16}, 3), down = random_leaf({16, 12}, 4), side = random_leaf({16, 16}, 6);
        Tensor h = leaf_input ? x : ops::cast(x, type);
        const auto body = [=](const std::vector<Tensor>& in) { return block(in, norm, up, down, side); };
        for (int layer = 0; layer < 3; ++layer) h = checkpointed ? checkpoint(body, {h}) : body({h});
        outputs.push_back(h);
        backward(h, random_tensor(h.shape(), 5, type));
        gradients.push_back({x.grad(), norm.grad(), up.grad(), down.grad(), side.grad()});
      }
      EXPECT_TRUE(same_bits(outputs[0], outputs[1]));
      for (size_t i = 0; i < 5; ++i) EXPECT_TRUE(same_bits(gradients[0][i], gradients[1][i])) << "gradient " << i;
    }
  }
}

TEST(Checkpoint, KeepsOnlyItsInputs) {
  const int64_t n = 512;
  const uint64_t unit = n * n * 4;
  const Tensor x = random_leaf({n, n}, 1);
  const auto body = [](const std::vector<Tensor>& in) {
    Tensor h = in[0];
    for (int i = 0; i < 6; ++i) h = ops::activation(h, Activation::silu);
    return h;
  };
  const uint64_t start = memory_use().current;
  {
    const Tensor plain = body({x});
    EXPECT_EQ(memory_use().current - start, 6 * unit);
  }
  const Tensor y = checkpoint(body, {x});
  EXPECT_EQ(memory_use().current - start, unit);
}

TEST(Checkpoint, OffTheTapeItIsJustTheBody) {
  const Tensor x = random_tensor({4}, 1);
  const auto body = [](const std::vector<Tensor>& in) { return ops::scale(in[0], 2); };
  EXPECT_EQ(checkpoint(body, {x}).node(), nullptr);
  const NoGrad off;
  EXPECT_EQ(checkpoint(body, {x.clone().set_requires_grad(true)}).node(), nullptr);
}

TEST(Checkpoint, InputsThatNeedNothingAndOutputsThatDependOnNothing) {
  const Tensor x = random_leaf({4}, 1), constant = random_tensor({4}, 2);
  const auto product = [](const std::vector<Tensor>& in) { return ops::multiply(in[0], in[1]); };
  backward(ops::sum(checkpoint(product, {x, constant})));
  EXPECT_EQ(values_of(x.grad()), values_of(constant));
  EXPECT_FALSE(constant.grad().defined());
  const Tensor ignored = checkpoint([&](const std::vector<Tensor>&) { return ops::scale(constant, 2); }, {x});
  backward(ops::sum(ignored));  // no gradient reaches x
  EXPECT_EQ(values_of(x.grad()), values_of(constant));
  const Tensor y = random_leaf({4}, 3);
  backward(ops::sum(checkpoint([](const std::vector<Tensor>& in) { return in[0]; }, {ops::scale(y, 3)})));
  EXPECT_EQ(values_of(y.grad()), Doubles(4, 3.0));
}

}  // namespace
}  // namespace qkv::test
