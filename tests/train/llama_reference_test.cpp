// Llama against reference checkpoints: logits, gradients, AdamW steps and token-by-token decoding. The reference vectors
// are optional data beside the checkout.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "qkv/formats/checkpoint.h"
#include "qkv/models/bundle.h"
#include "qkv/tensor/ops.h"
#include "qkv/train/optimizer.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

class LlamaReference : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    path_ = test::shared(std::string("fixtures/models/") + GetParam());
    if (!std::filesystem::exists(path_ + "/expected.safetensors")) GTEST_SKIP() << "reference vectors not found at " << path_;
    LoadOptions options;
    options.residence = Residence::trainable;
    options.tokenizer_required = false;
    bundle_ = load_bundle(path_, options);
    expected_ = open_checkpoint(path_ + "/expected.safetensors");
    const Tensor ids = expected_->read("input_ids");
    rows_ = ids.dim(0);
    length_ = ids.dim(1);
    for (int64_t i = 0; i < ids.elements(); ++i) tokens_.push_back(static_cast<int32_t>(ids.data<int64_t>()[i]));
  }

  // The mean loss of Hugging Face's labels = input_ids.
  Tensor loss() {
    std::vector<int32_t> targets;
    for (int64_t r = 0; r < rows_; ++r) {
      for (int64_t t = 0; t < length_; ++t) {
        targets.push_back(t + 1 < length_ ? tokens_[static_cast<size_t>(r * length_ + t + 1)] : ops::kIgnore);
      }
    }
    const Pass pass = Pass::whole(std::vector<int64_t>(static_cast<size_t>(rows_), length_));
    const Tensor total = ops::linear_cross_entropy(bundle_.model->forward(tokens_, pass), bundle_.model->head(), targets);
    return ops::scale(total, 1.0f / static_cast<float>(rows_ * (length_ - 1)));
  }

  std::string path_;
  Bundle bundle_;
  std::unique_ptr<Checkpoint> expected_;
  std::vector<int32_t> tokens_;
  int64_t rows_ = 0, length_ = 0;
};

double largest_difference(const Tensor& a, const Tensor& b) {
  const std::vector<float> x = a.to_floats(), y = b.to_floats();
  EXPECT_EQ(x.size(), y.size());
  double largest = 0;
  for (size_t i = 0; i < x.size(); ++i) largest = std::max(largest, std::abs(double{x[i]} - y[i]));
  return largest;
}

double largest(const Tensor& a) {
  double value = 0;
  for (float x : a.to_floats()) value = std::max(value, std::abs(double{x}));
  return value;
}

TEST_P(LlamaReference, LogitsOfWholeSequences) {
  const NoGrad off;
  const Pass pass = Pass::whole(std::vector<int64_t>(static_cast<size_t>(rows_), length_));
  const Tensor logits = bundle_.model->logits(bundle_.model->forward(tokens_, pass));
  EXPECT_LT(largest_difference(logits, expected_->read("logits")), 1e-4);
}

TEST_P(LlamaReference, DecodingTokenByTokenGivesTheSameLogits) {
  const NoGrad off;
  const Tensor reference = expected_->read("logits");
  const int64_t vocabulary = bundle_.model->info().vocabulary;
  for (int64_t r = 0; r < rows_; ++r) {
    SequenceState state = bundle_.model->make_state();
    double difference = 0;
    for (int64_t t = 0; t < length_; ++t) {
      const Pass pass = Pass::next(state, 1);
      const Tensor step = bundle_.model->logits(bundle_.model->forward({tokens_[static_cast<size_t>(r * length_ + t)]}, pass));
      const float* want = reference.data<float>() + (r * length_ + t) * vocabulary;
      for (int64_t v = 0; v < vocabulary; ++v) difference = std::max(difference, std::abs(double{step.data<float>()[v]} - want[v]));
    }
    EXPECT_LT(difference, 1e-4) << "row " << r;
  }
}

TEST_P(LlamaReference, GreedyTokensAreExact) {
  const NoGrad off;
  const Tensor want = expected_->read("greedy_tokens");  // (rows, prompt + new)
  constexpr int64_t prompt = 8;
  for (int64_t r = 0; r < rows_; ++r) {
    SequenceState state = bundle_.model->make_state();
    std::vector<int32_t> input(tokens_.begin() + r * length_, tokens_.begin() + r * length_ + prompt);
    for (int64_t t = prompt; t < want.dim(1); ++t) {
      const Pass pass = Pass::next(state, static_cast<int64_t>(input.size()));
      const Tensor hidden = bundle_.model->forward(input, pass);
      const Tensor logits = bundle_.model->logits(hidden.row_view(hidden.rows() - 1, hidden.rows()));
      const auto values = logits.span<float>();
      const auto next = static_cast<int32_t>(std::max_element(values.begin(), values.end()) - values.begin());
      ASSERT_EQ(next, want.data<int64_t>()[r * want.dim(1) + t]) << "row " << r << ", token " << t;
      input = {next};
    }
  }
}

TEST_P(LlamaReference, GradientsMatch) {
  if (!std::filesystem::exists(path_ + "/expected_grads.safetensors")) GTEST_SKIP() << "no gradients for this checkpoint";
  const auto gradients = open_checkpoint(path_ + "/expected_grads.safetensors");
  bundle_.model->set_trainable(true);
  backward(loss());
  size_t compared = 0;
  bundle_.model->visit("", [&](const std::string& name, Tensor& parameter) {
    const Tensor want = gradients->read(hf_name(*bundle_.model, name));
    EXPECT_LT(largest_difference(parameter.grad(), want) / largest(want), 1e-4) << name;
    ++compared;
  });
  EXPECT_EQ(compared, gradients->entries().size());
}

TEST_P(LlamaReference, ActivationCheckpointingGivesTheSameGradientBits) {
  bundle_.model->set_trainable(true);
  const auto gradients_with = [&](bool checkpointing) {
    Pass pass = Pass::whole(std::vector<int64_t>(static_cast<size_t>(rows_), length_));
    pass.checkpoint_activations = checkpointing;
    pass.dropout = 0.1f;
    backward(ops::sum(bundle_.model->forward(tokens_, pass)));
    std::vector<std::vector<float>> all;
    bundle_.model->visit("", [&](const std::string&, Tensor& parameter) {
      if (parameter.grad().defined()) all.push_back(parameter.grad().to_floats());
      parameter.clear_grad();
    });
    return all;
  };
  EXPECT_EQ(gradients_with(false), gradients_with(true));
}

TEST_P(LlamaReference, ThreeAdamWSteps) {
  if (!std::filesystem::exists(path_ + "/expected_adamw3.safetensors")) GTEST_SKIP() << "no optimizer steps for this checkpoint";
  const auto reference = open_checkpoint(path_ + "/expected_adamw3.safetensors");
  const auto reference64 = open_checkpoint(path_ + "/expected_adamw3_f64.safetensors");
  bundle_.model->set_trainable(true);
  AdamWConfig config;
  config.lr = 1e-3;
  config.decay_all = true;
  AdamW optimizer(*bundle_.model, config);
  for (int step = 0; step < 3; ++step) {
    backward(loss());
    optimizer.step(1.0, 1.0);
  }
  bundle_.model->visit("", [&](const std::string& name, Tensor& parameter) {
    const std::string wanted = hf_name(*bundle_.model, name);
    // Where float32 rounding moved the reference itself (Adam divides near-zero gradients by themselves), the float64 run
    // of the reference decides, within the reference's own difference.
    const Tensor want = reference->read(wanted);
    double tolerance = 1e-5;
    if (reference64->find(wanted) != nullptr) {
      tolerance += 2 * largest_difference(want, reference64->read(wanted));
    }
    EXPECT_LT(largest_difference(parameter, want), tolerance) << name;
  });
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, LlamaReference,
                         testing::Values("llama", "llama_bf16", "llama_f16", "llama_mha_tied_bias", "llama_rope_linear",
                                         "llama_rope_llama3", "llama_rope_yarn", "llama_sharded", "mistral_swa", "qwen2",
                                         "qwen3", "stablelm", "olmo"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace qkv
