// Every architecture against checkpoints and results of the framework it comes from: logits, hidden states,
// greedy tokens, token-by-token decoding, gradients and AdamW steps. The reference vectors are optional data
// beside the checkout.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "qkv/formats/checkpoint.h"
#include "qkv/formats/hf_directory.h"
#include "qkv/models/bundle.h"
#include "qkv/models/registry.h"
#include "qkv/models/stored_values.h"
#include "qkv/nn/moe.h"
#include "qkv/tensor/ops.h"
#include "qkv/train/optimizer.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

struct Reference {
  const char* name;
  double f32_error;  // of the reference's own logits: its float32 run against its float64 run
};

void PrintTo(const Reference& reference, std::ostream* out) {
  *out << reference.name;
}

constexpr Reference kReferences[] = {
    {"bert", 1.3e-6},
    {"bert_mlm", 3.1e-6},
    {"bloom", 1.2e-5},
    {"deepseek_v2", 4.2e-6},
    {"deepseek_v2_lite", 2.3e-6},
    {"deepseek_v3", 3.5e-6},
    {"distilbert", 1.3e-6},
    {"falcon_mqa", 9.8e-6},
    {"falcon_rw_alibi", 1.1e-5},
    {"gemma", 9.4e-6},
    {"gemma2", 2.3e-5},
    {"gpt2", 2.1e-5},
    {"gpt2_bin", 1.5e-5},
    {"gpt_neox", 1.6e-6},
    {"gptj", 2.1e-6},
    {"llama", 2.8e-6},
    {"llama_bf16", 2.4e-6},
    {"llama_f16", 2.4e-6},
    {"llama_mha_tied_bias", 1.5e-5},
    {"llama_rope_linear", 2.3e-6},
    {"llama_rope_llama3", 2.2e-6},
    {"llama_rope_yarn", 2.7e-6},
    {"llama_sharded", 1.9e-6},
    {"mamba", 2.1e-5},
    {"mamba2", 2.3e-6},
    {"mistral_swa", 4.1e-6},
    {"mixtral", 2.6e-6},
    {"mpt", 8.9e-6},
    {"olmo", 1.6e-6},
    {"opt", 1.4e-5},
    {"phi", 1.4e-6},
    {"phi3", 2.3e-6},
    {"qwen2", 1.3e-5},
    {"qwen3", 7.4e-6},
    {"stablelm", 2.1e-6},
};

class ModelReference : public testing::TestWithParam<Reference> {
 protected:
  void SetUp() override {
    path_ = test::shared(std::string("fixtures/models/") + GetParam().name);
    if (!std::filesystem::exists(path_ + "/expected.safetensors"))
      GTEST_SKIP() << "reference vectors not found at " << path_;
    config_ = *load_config_if_present(path_, "config.json");
    if (find_architecture_or_null(config_) == nullptr)
      GTEST_SKIP() << "architecture not implemented: " << config_["model_type"];
    LoadOptions options;
    options.residence = Residence::trainable;
    options.tokenizer_required = false;
    bundle_ = load_bundle(path_, options);
    expected_ = open_checkpoint(path_ + "/expected.safetensors");
    encoder_ = expected_->find("attention_mask") != nullptr;
    const Tensor ids = expected_->read("input_ids");
    rows_ = ids.dim(0);
    length_ = ids.dim(1);
    for (int64_t i = 0; i < ids.elements(); ++i)
      tokens_.push_back(static_cast<int32_t>(ids.data<int64_t>()[i]));
  }

  double tolerance() const { return std::max(1e-4, 10 * GetParam().f32_error); }
  Model& model() { return *bundle_.model; }
  bool has_file(const std::string& file_name) const {
    return std::filesystem::exists(path_ + "/" + file_name);
  }
  Pass whole_pass() const { return Pass::whole(std::vector<int64_t>(static_cast<size_t>(rows_), length_)); }

  // The mean loss of Hugging Face's labels = input_ids.
  Tensor loss() {
    std::vector<int32_t> targets;
    for (int64_t r = 0; r < rows_; ++r) {
      for (int64_t t = 0; t < length_; ++t) {
        targets.push_back(t + 1 < length_ ? tokens_[static_cast<size_t>(r * length_ + t + 1)] : ops::kIgnore);
      }
    }
    const Tensor total = model().cross_entropy(model().forward(tokens_, whole_pass()), targets);
    return ops::scale(total, 1.0f / static_cast<float>(rows_ * (length_ - 1)));
  }

  // A checkpoint's tensors as the parameters of a model of their own. Gradients and optimizer steps are
  // linear in the layout, so they are read the way weights are.
  std::map<std::string, Tensor> read_as_parameters(const std::string& file_name) {
    const auto other = make_model(config_, "config.json");
    load_weights(*other, *open_checkpoint(path_ + "/" + file_name), Residence::trainable);
    std::map<std::string, Tensor> parameters;
    other->visit("", [&](const std::string& name, Tensor& parameter) { parameters[name] = parameter; });
    return parameters;
  }

  std::string path_;
  Json config_;
  Bundle bundle_;
  std::unique_ptr<Checkpoint> expected_;
  std::vector<int32_t> tokens_;
  int64_t rows_ = 0, length_ = 0;
  bool encoder_ = false;
};

double largest_difference(const Tensor& a, const Tensor& b) {
  const std::vector<float> x = a.to_floats(), y = b.to_floats();
  EXPECT_EQ(x.size(), y.size());
  double largest = 0;
  for (size_t i = 0; i < std::min(x.size(), y.size()); ++i)
    largest = std::max(largest, std::abs(double{x[i]} - y[i]));
  return largest;
}

double largest(const Tensor& a) {
  double value = 0;
  for (float x : a.to_floats()) value = std::max(value, std::abs(double{x}));
  return value;
}

TEST_P(ModelReference, LogitsOfWholeSequences) {
  if (encoder_) GTEST_SKIP() << "an encoder";
  const NoGrad off;
  const Tensor logits = model().logits(model().forward(tokens_, whole_pass()));
  EXPECT_LT(largest_difference(logits, expected_->read("logits")), tolerance());
}

// Padding is what the reference masks and what packed sequences do not have.
TEST_P(ModelReference, EncodersOutputsAtEveryUnmaskedPosition) {
  if (!encoder_) GTEST_SKIP() << "a decoder";
  const NoGrad off;
  const Tensor mask = expected_->read("attention_mask");
  std::vector<int32_t> tokens;
  std::vector<int64_t> lengths;
  for (int64_t r = 0; r < rows_; ++r) {
    int64_t length = 0;
    for (; length < length_ && mask.data<int64_t>()[r * length_ + length] != 0; ++length) {
      tokens.push_back(tokens_[static_cast<size_t>(r * length_ + length)]);
    }
    lengths.push_back(length);
  }
  const Tensor hidden = model().forward(tokens, Pass::whole(lengths));
  const bool logits = expected_->find("logits") != nullptr;
  const Tensor output = logits ? model().logits(hidden) : hidden;
  const Tensor want = expected_->read(logits ? "logits" : "last_hidden_state");
  const int64_t cols = output.cols();
  ASSERT_EQ(cols, want.cols());
  int64_t row = 0;
  double difference = 0, pooled_difference = 0;
  for (int64_t r = 0; r < rows_; ++r) {
    std::vector<double> mean(static_cast<size_t>(cols), 0.0);
    for (int64_t t = 0; t < lengths[static_cast<size_t>(r)]; ++t, ++row) {
      for (int64_t c = 0; c < cols; ++c) {
        const double value = output.data<float>()[row * cols + c];
        difference = std::max(difference, std::abs(value - want.data<float>()[(r * length_ + t) * cols + c]));
        mean[static_cast<size_t>(c)] += value / static_cast<double>(lengths[static_cast<size_t>(r)]);
      }
    }
    if (expected_->find("mean_pooled") == nullptr) continue;
    const Tensor pooled = expected_->read("mean_pooled");
    for (int64_t c = 0; c < cols; ++c) {
      pooled_difference = std::max(
          pooled_difference, std::abs(mean[static_cast<size_t>(c)] - pooled.data<float>()[r * cols + c]));
    }
  }
  EXPECT_LT(difference, tolerance());
  EXPECT_LT(pooled_difference, tolerance());
}

TEST_P(ModelReference, DecodingTokenByTokenGivesTheSameLogits) {
  if (encoder_) GTEST_SKIP() << "an encoder";
  const NoGrad off;
  const Tensor reference = expected_->read("logits");
  const int64_t vocabulary = model().info().vocabulary;
  for (int64_t r = 0; r < rows_; ++r) {
    SequenceState state = model().make_state();
    double difference = 0;
    for (int64_t t = 0; t < length_; ++t) {
      const Pass pass = Pass::next(state, 1);
      const Tensor step =
          model().logits(model().forward({tokens_[static_cast<size_t>(r * length_ + t)]}, pass));
      const float* want = reference.data<float>() + (r * length_ + t) * vocabulary;
      for (int64_t v = 0; v < vocabulary; ++v)
        difference = std::max(difference, std::abs(double{step.data<float>()[v]} - want[v]));
    }
    EXPECT_LT(difference, tolerance()) << "row " << r;
  }
}

TEST_P(ModelReference, GreedyTokensAreExact) {
  if (encoder_) GTEST_SKIP() << "an encoder";
  const NoGrad off;
  const Tensor want = expected_->read("greedy_tokens");  // (rows, prompt + new)
  constexpr int64_t prompt = 8;
  for (int64_t r = 0; r < rows_; ++r) {
    SequenceState state = model().make_state();
    std::vector<int32_t> input(tokens_.begin() + r * length_, tokens_.begin() + r * length_ + prompt);
    for (int64_t t = prompt; t < want.dim(1); ++t) {
      const Pass pass = Pass::next(state, static_cast<int64_t>(input.size()));
      const Tensor hidden = model().forward(input, pass);
      const Tensor logits = model().logits(hidden.row_view(hidden.rows() - 1, hidden.rows()));
      const auto values = logits.span<float>();
      const auto next = static_cast<int32_t>(std::max_element(values.begin(), values.end()) - values.begin());
      ASSERT_EQ(next, want.data<int64_t>()[r * want.dim(1) + t]) << "row " << r << ", token " << t;
      input = {next};
    }
  }
}

TEST_P(ModelReference, RoutersAndTheirLoadBalancing) {
  if (!encoder_ && expected_->find("router_logits.0") == nullptr) GTEST_SKIP() << "no router logits for this checkpoint";
  if (encoder_) GTEST_SKIP() << "an encoder";
  const NoGrad off;
  std::vector<Tensor> logits;
  Pass pass = whole_pass();
  pass.router_logits = &logits;
  model().forward(tokens_, pass);
  for (size_t i = 0; i < logits.size(); ++i) {
    const Tensor want = expected_->read("router_logits." + std::to_string(i));
    EXPECT_LT(largest_difference(logits[i], want.view(logits[i].shape())), tolerance()) << "layer " << i;
  }
  const Json expected = load_json(path_ + "/expected.json");
  const int top_k = config_["num_experts_per_tok"].get<int>();
  EXPECT_NEAR(load_balancing_loss(logits, top_k).item(), expected["aux_loss"].get<double>(), 1e-5);
}

TEST_P(ModelReference, GradientsMatch) {
  if (!has_file("expected_grads.safetensors")) GTEST_SKIP() << "no gradients for this checkpoint";
  std::map<std::string, Tensor> gradients = read_as_parameters("expected_grads.safetensors");
  model().set_trainable(true);
  backward(loss());
  size_t compared = 0;
  model().visit("", [&](const std::string& name, Tensor& parameter) {
    const Tensor& want = gradients.at(name);
    // Key biases shift all scores of a query alike, so their gradient is rounding noise around zero.
    const double size = largest(want);
    const double tolerance = size > 1e-6 ? 1e-4 * size : 1e-6;
    const Tensor found = parameter.grad().defined() ? parameter.grad() : Tensor::zeros(parameter.shape());
    EXPECT_LT(largest_difference(found, want), tolerance) << name;
    ++compared;
  });
  EXPECT_EQ(compared, gradients.size());
}

TEST_P(ModelReference, ActivationCheckpointingGivesTheSameGradientBits) {
  if (encoder_) GTEST_SKIP() << "an encoder";
  model().set_trainable(true);
  const auto gradients_with = [&](bool checkpointing) {
    Pass pass = whole_pass();
    pass.checkpoint_activations = checkpointing;
    pass.dropout = 0.1f;
    backward(ops::sum(model().forward(tokens_, pass)));
    std::vector<std::vector<float>> all;
    model().visit("", [&](const std::string&, Tensor& parameter) {
      if (parameter.grad().defined()) all.push_back(parameter.grad().to_floats());
      parameter.clear_grad();
    });
    return all;
  };
  EXPECT_EQ(gradients_with(false), gradients_with(true));
}

TEST_P(ModelReference, ThreeAdamWSteps) {
  if (!has_file("expected_adamw3.safetensors")) GTEST_SKIP() << "no optimizer steps for this checkpoint";
  std::map<std::string, Tensor> wanted = read_as_parameters("expected_adamw3.safetensors");
  // The float64 run of the reference has only the tensors that differ; the others are the float32 run's.
  const auto reference64 = open_checkpoint(path_ + "/expected_adamw3_f64.safetensors");
  const std::vector<WeightMapping> mappings = expand(model());
  model().set_trainable(true);
  OptimizerConfig config;
  config.lr = 1e-3;
  config.decay_all = true;
  const auto optimizer = make_optimizer(model(), config);
  for (int step = 0; step < 3; ++step) {
    backward(loss());
    optimizer->step(1.0, 1.0);
  }
  size_t index = 0;
  model().visit("", [&](const std::string& name, Tensor& parameter) {
    const WeightMapping& mapping = mappings[index++];
    const Tensor& want = wanted.at(name);
    // Where float32 rounding moved the reference itself (Adam divides near-zero gradients by themselves), its
    // own difference from float64 is the measure.
    double tolerance = 1e-5;
    if (reference64->find(mapping.hf.name) != nullptr) {
      tolerance += 2 * largest_difference(want, take_parameter(reference64->read(mapping.hf.name), mapping.hf,
                                                               mapping.shape));
    }
    EXPECT_LT(largest_difference(parameter, want), tolerance) << name;
  });
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, ModelReference, testing::ValuesIn(kReferences),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace qkv
