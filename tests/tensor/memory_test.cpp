// Memory: exact counts, nothing left behind, and losses whose logits never exist at once.
#include "tests/tensor/tensor_testing.h"

namespace qkv::test {
namespace {

constexpr uint64_t kMega = uint64_t{1} << 20;

TEST(Allocator, CountsWhatWasAskedFor) {
  const uint64_t start = memory_use().current;
  reset_peak();
  {
    const Tensor small = Tensor::empty({3}), odd = Tensor::empty({7}, DType::u8);
    EXPECT_EQ(memory_use().current - start, 12u + 7u);
    {
      const Tensor large = Tensor::empty({1 << 20}, DType::bf16);
      EXPECT_EQ(memory_use().current - start, 19u + 2 * kMega);
      const Tensor view = large.view({1 << 10, 1 << 10}), rows = view.row_view(5, 9), same = large.detach();
      EXPECT_EQ(memory_use().current - start, 19u + 2 * kMega) << "views own nothing";
    }
    EXPECT_EQ(memory_use().current - start, 19u);
    EXPECT_EQ(memory_use().peak - start, 19u + 2 * kMega);
  }
  EXPECT_EQ(memory_use().current, start);
  reset_peak();
  EXPECT_EQ(memory_use().peak, start);
}

TEST(Allocator, AlignsAndReuses) {
  release_cached_memory();
  EXPECT_EQ(memory_use().cached, 0u);
  const void* first = nullptr;
  {
    const Tensor t = Tensor::empty({1 << 18});
    first = t.raw();
    EXPECT_EQ(reinterpret_cast<uintptr_t>(first) % 64, 0u);
  }
  EXPECT_GE(memory_use().cached, kMega);
  const Tensor again = Tensor::empty({(1 << 18) - 100});  // within an eighth of the block
  EXPECT_EQ(again.raw(), first);
  EXPECT_EQ(memory_use().cached, 0u);
  for (int64_t n : {0, 1, 63, 1000, 16383, 16384, 100000}) EXPECT_EQ(reinterpret_cast<uintptr_t>(Tensor::empty({n}).raw()) % 64, 0u);
}

TEST(Allocator, ARequestThatCannotBeMetIsAnError) {
  const uint64_t start = memory_use().current;
  EXPECT_THROW(Tensor::empty({int64_t{1} << 46}), Error);
  EXPECT_THROW(Tensor::empty({int64_t{1} << 61}, DType::f64), Error) << "2^64 bytes";
  EXPECT_EQ(memory_use().current, start);
  EXPECT_GT(peak_resident_bytes(), 0u);
}

// One step of everything a small model uses.
Tensor model_loss(const Tensor& table, const Tensor& norm, const Tensor& w, const Tensor& w_cast, const Tensor& bias, DType type) {
  const Tensor x = ops::embedding({1, 2, 3, 2, 1, 0}, table, type);
  Tensor h = checkpoint([&](const std::vector<Tensor>& in) { return ops::linear(ops::rms_norm(in[0], norm, 1e-5f), w, bias); }, {x});
  h = ops::add(x, ops::dropout(ops::activation(h, Activation::gelu_tanh), 0.2f, 1, 1));
  h = ops::layer_norm(h, norm, {}, 1e-5f);
  h = ops::concat_cols({ops::slice_cols(h, 4, 8), ops::slice_cols(h, 0, 4)});
  h = ops::add(h, ops::softmax(ops::matmul(h, w_cast)));
  h = ops::concat_rows({ops::slice_rows(h, 3, 6), ops::select_rows(h, {0, 0, 1})});
  const std::vector<int32_t> targets = {2, 3, 2, 1, 0, 5};
  const Tensor log_probs = ops::linear_log_probs(h, table, targets);
  return ops::add(ops::linear_cross_entropy(h, table, targets), ops::scale(ops::mean(log_probs), 0.1f));
}

TEST(Leaks, NothingIsLeftOfAGraph) {
  for (DType type : {DType::f32, DType::bf16}) {
    const uint64_t start = memory_use().current;
    {
      const Tensor table = random_leaf({6, 8}, 1), norm = random_leaf({8}, 2), w = random_leaf({8, 8}, 3), bias = random_leaf({8}, 4);
      const Tensor w_cast = type == DType::f32 ? w : ops::cast(w, type);
      const uint64_t parameters = memory_use().current;
      if (type == DType::f32) {
        { const Tensor dropped = model_loss(table, norm, w, w, bias, type); }
        EXPECT_EQ(memory_use().current, parameters) << "a graph dropped without backward";
      }
      {
        const Tensor loss = model_loss(table, norm, w, w_cast, bias, type);
        backward(loss);
      }
      for (const Tensor& leaf : {table, norm, w, bias}) {
        EXPECT_TRUE(leaf.grad().defined());
        Tensor(leaf).clear_grad();
        Tensor(leaf).mark_modified();
      }
      if (type == DType::f32) {
        EXPECT_EQ(memory_use().current, parameters) << "after backward";
      }
    }
    EXPECT_EQ(memory_use().current, start);
  }
}

TEST(Leaks, AnErrorInTheMiddleLeavesNothing) {
  const uint64_t start = memory_use().current;
  {
    const Tensor x = random_leaf({4, 4}, 1);
    const Tensor y = ops::scale(x, 2);
    Tensor z = y.clone();
    record("breaks", {y}, {&z}, [] { return [](const std::vector<Tensor>&, GradientSink&) { throw Error("broken"); }; });
    EXPECT_THROW(backward(ops::sum(z)), Error);
    EXPECT_TRUE(gradient_mode());
  }
  EXPECT_EQ(memory_use().current, start);
}

TEST(Leaks, ALongChainCanBeDropped) {
  const uint64_t start = memory_use().current;
  {
    Tensor x = random_leaf({1}, 1);
    for (int i = 0; i < 2000; ++i) x = ops::scale(x, 1.0f);
  }
  EXPECT_EQ(memory_use().current, start);
}

TEST(Peak, OfASmallGraphIsExact) {
  const uint64_t unit = uint64_t{256} * 1024 * 4;
  const Tensor x = random_leaf({256, 1024}, 1);
  const uint64_t start = memory_use().current;
  reset_peak();
  Tensor h = ops::activation(x, Activation::silu);  // kept by the next op's backward
  h = ops::activation(h, Activation::silu);         // kept by nobody: scaling needs no input to go back
  h = ops::scale(h, 2);
  EXPECT_EQ(memory_use().current - start, 2 * unit);
  EXPECT_EQ(memory_use().peak - start, 3 * unit);
  Tensor upstream = Tensor::full({256, 1024}, 1.0f);
  backward(h, upstream);
  EXPECT_EQ(memory_use().current - start, 3 * unit) << "the output, the upstream gradient and the leaf's gradient";
  EXPECT_EQ(memory_use().peak - start, 5 * unit) << "those, the gradient that arrives and the one that leaves";
}

TEST(Peak, RecomputedOutputsAreNotKept) {
  const uint64_t unit = uint64_t{256} * 1024 * 4;
  const Tensor x = random_leaf({256, 1024}, 1), w = random_leaf({8, 1024}, 2);
  const uint64_t start = memory_use().current;
  const Tensor y = ops::linear(ops::rms_norm(x, {}, 1e-5f), w);
  // The norm's output can be made again, so that nothing of its size stays.
  EXPECT_LT(memory_use().current - start, unit / 8);
}

struct Vocabulary {
  int64_t tokens = 512, channels = 16, vocabulary = 8192;  // (T, V) would be 16 MiB
  Tensor h = random_leaf({tokens, channels}, 1), w = random_leaf({vocabulary, channels}, 2, DType::f32, 0.1);
  std::vector<int32_t> targets = std::vector<int32_t>(static_cast<size_t>(tokens), 5);
  ops::CrossEntropyOptions options;
  Vocabulary() { options.chunk_rows = 32; }
  uint64_t chunk() const { return static_cast<uint64_t>(32 * vocabulary) * 4; }
  uint64_t gradients() const { return h.bytes() + w.bytes(); }
};

TEST(Peak, LinearCrossEntropyHoldsOneChunkOfLogits) {
  Vocabulary v;
  const uint64_t start = memory_use().current;
  reset_peak();
  const Tensor loss = ops::linear_cross_entropy(v.h, v.w, v.targets, v.options);
  EXPECT_EQ(memory_use().peak - start, v.chunk() + v.gradients() + sizeof(float)) << "the last is the loss";
  backward(loss);
  EXPECT_LE(memory_use().peak - start, v.chunk() + v.gradients() + 64);
}

TEST(Peak, LinearLogProbsHoldsOneChunkOfLogits) {
  Vocabulary v;
  const uint64_t start = memory_use().current;
  reset_peak();
  const Tensor log_probs = ops::linear_log_probs(v.h, v.w, v.targets, v.options);
  EXPECT_EQ(memory_use().peak - start, v.chunk() + log_probs.bytes());
  backward(ops::sum(log_probs));
  EXPECT_LE(memory_use().peak - start, v.chunk() + v.gradients() + 4 * log_probs.bytes());
}

TEST(Peak, TheChosenChunkIsSmallForAnyVocabulary) {
  const Tensor h = random_leaf({4096, 4}, 1), w = random_leaf({32768, 4}, 2);  // (T, V) would be 512 MiB
  const uint64_t start = memory_use().current;
  reset_peak();
  const Tensor loss = ops::linear_cross_entropy(h, w, std::vector<int32_t>(4096, ops::kIgnore));
  EXPECT_LE(memory_use().peak - start, 32 * kMega);
  EXPECT_EQ(loss.item(), 0.0f);
}

}  // namespace
}  // namespace qkv::test
