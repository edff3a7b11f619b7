// What holds for every attention architecture: the same numbers token by token, in pieces and in batches,
// gradients for every parameter, and the same model after a journey through Hugging Face tensors or GGUF.
#include "qkv/models/decoder.h"

#include <gtest/gtest.h>

#include <cmath>
#include <unordered_map>

#include "qkv/core/error.h"
#include "qkv/core/rng.h"
#include "qkv/models/registry.h"
#include "qkv/models/stored_names.h"
#include "qkv/models/stored_values.h"
#include "qkv/models/weights.h"
#include "tests/models/small_configs.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

std::vector<int32_t> some_tokens(int64_t n, int64_t vocabulary, uint64_t seed = 3) {
  Rng rng(seed);
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < n; ++i)
    tokens.push_back(static_cast<int32_t>(rng.below(static_cast<uint64_t>(vocabulary))));
  return tokens;
}

double largest_difference(const Tensor& a, const Tensor& b) {
  const std::vector<float> x = a.to_floats(), y = b.to_floats();
  EXPECT_EQ(x.size(), y.size());
  double largest = 0;
  for (size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
    const double difference = std::abs(double{x[i]} - double{y[i]});
    largest = std::isnan(difference) ? INFINITY : std::max(largest, difference);
  }
  return largest;
}

// Random everywhere, also where initialization would give ones and zeros.
void fill(Model& model) {
  uint64_t seed = 100;
  model.visit("", [&](const std::string& name, Tensor& parameter) {
    const bool matrix = parameter.shape().rank() == 2;
    const float deviation = matrix ? 1.2f / std::sqrt(static_cast<float>(parameter.cols())) : 0.3f;
    const float mean = !matrix && !name.ends_with(".bias") ? 0.8f : 0.0f;
    Rng rng(seed++);
    parameter = Tensor::empty(parameter.shape());
    for (int64_t i = 0; i < parameter.elements(); ++i)
      parameter.data<float>()[i] = mean + deviation * rng.normal();
  });
}

Tensor result_of(const Model& model, const std::vector<int32_t>& tokens, const Pass& pass) {
  const Tensor hidden = model.forward(tokens, pass);
  return model.head().defined() ? model.logits(hidden) : hidden;
}

// A model's tensors under one naming, in memory, with metadata as a GGUF file has it.
class Stored : public Checkpoint {
 public:
  Stored(Model& model, Naming naming) : Checkpoint("memory") {
    std::unordered_map<std::string, Tensor> parameters;
    model.visit("",
                [&](const std::string& name, Tensor& parameter) { parameters[name] = parameter.detach(); });
    mappings_ = expand(model);
    std::vector<TensorEntry> entries;
    for (const StoredGroup& group : group_by_tensor(mappings_, StoredNames(naming))) {
      Tensor stored = Tensor::full(group.shape, NAN);
      for (const WeightMapping* part : group.parts) {
        put_parameter(stored, naming == Naming::gguf ? part->gguf : part->hf, parameters.at(part->parameter));
      }
      for (const float value : stored.to_floats())
        EXPECT_FALSE(std::isnan(value)) << group.name << " has rows of nobody";
      entries.push_back({group.name, DType::f32, group.shape});
      tensors_.push_back(stored);
    }
    if (naming == Naming::gguf) {
      const Architecture& architecture = *architecture_of(model);
      const Json config = model.hf_config();
      const JsonView view(config, "config.json");
      metadata_.set("general.architecture", std::string(architecture.gguf));
      architecture.to_gguf(view, metadata_);
      if (architecture.gguf_tensors != nullptr) {
        for (auto& [name, tensor] : architecture.gguf_tensors(view)) {
          entries.push_back({name, DType::f32, tensor.shape()});
          tensors_.push_back(tensor);
        }
      }
    }
    set_entries(std::move(entries));
  }
  std::string_view format_name() const override { return "memory"; }

 private:
  Tensor read_entry(size_t index) const override { return tensors_[index]; }
  std::vector<Tensor> tensors_;
  std::vector<WeightMapping> mappings_;
};

class EveryArchitecture : public testing::TestWithParam<test::SmallConfig> {
 protected:
  EveryArchitecture() : model_(make_model(GetParam().config, "config.json")) {
    fill(*model_);
    tokens_ = some_tokens(24, model_->info().vocabulary);
  }
  std::unique_ptr<Model> model_;
  std::vector<int32_t> tokens_;
};

TEST_P(EveryArchitecture, PiecesOfASequenceGiveWhatTheWholeGives) {
  if (!model_->info().causal) GTEST_SKIP() << "an encoder";
  const NoGrad off;
  // Where frequencies depend on the length, pieces are shorter sequences: stay below it.
  const bool by_length = GetParam().name == "phi3";
  const int64_t n = by_length ? 16 : 24;
  tokens_.resize(static_cast<size_t>(n));
  const Tensor whole = result_of(*model_, tokens_, Pass::whole({n}));
  for (const int64_t piece : {int64_t{1}, int64_t{5}, n}) {
    SequenceState state = model_->make_state();
    for (int64_t t = 0; t < n; t += piece) {
      const int64_t end = std::min(n, t + piece);
      const Pass pass = Pass::next(state, end - t);
      const Tensor part = result_of(*model_, {tokens_.begin() + t, tokens_.begin() + end}, pass);
      ASSERT_LT(largest_difference(part, whole.row_view(t, end)), 1e-4)
          << "pieces of " << piece << " at " << t;
    }
    EXPECT_EQ(state.length, n);
  }
}

TEST_P(EveryArchitecture, SequencesDoNotSeeEachOther) {
  const NoGrad off;
  std::vector<int32_t> other = some_tokens(9, model_->info().vocabulary, 7), both = tokens_;
  both.insert(both.end(), other.begin(), other.end());
  const Tensor together = result_of(*model_, both, Pass::whole({24, 9}));
  EXPECT_LT(largest_difference(result_of(*model_, tokens_, Pass::whole({24})), together.row_view(0, 24)),
            1e-4);
  EXPECT_LT(largest_difference(result_of(*model_, other, Pass::whole({9})), together.row_view(24, 33)), 1e-4);
}

TEST_P(EveryArchitecture, EncodersSeeLaterTokensAndHaveNoState) {
  if (model_->info().causal) GTEST_SKIP() << "a decoder";
  const NoGrad off;
  std::vector<int32_t> changed = tokens_;
  changed.back() = (changed.back() + 1) % static_cast<int32_t>(model_->info().vocabulary);
  const Tensor before = model_->forward(tokens_, Pass::whole({24})),
               after = model_->forward(changed, Pass::whole({24}));
  EXPECT_GT(largest_difference(before.row_view(0, 1), after.row_view(0, 1)), 1e-4);
  EXPECT_THROW(model_->make_state(), Error);
}

TEST_P(EveryArchitecture, EveryParameterGetsAGradientThatPointsDownhill) {
  model_->set_trainable(true);
  std::vector<int32_t> targets(tokens_.begin() + 1, tokens_.end());
  targets.push_back(ops::kIgnore);
  const auto loss = [&] {
    const Tensor hidden = model_->forward(tokens_, Pass::whole({24}));
    if (model_->head().defined()) return model_->cross_entropy(hidden, targets);
    return ops::sum(ops::multiply(
        hidden,
        ops::reshape(ops::embedding({0}, Tensor::full({1, hidden.elements()}, 0.1f)), hidden.shape())));
  };
  backward(loss());
  model_->visit("", [&](const std::string& name, Tensor& parameter) {
    // Steers a choice, is not used, or is an expert that no token chose.
    if (name.find("correction") != std::string::npos || name.find("pooler") != std::string::npos) return;
    if (name.find("experts.") != std::string::npos && !parameter.grad().defined()) return;
    ASSERT_TRUE(parameter.grad().defined()) << name;
    EXPECT_EQ(parameter.grad().shape(), parameter.shape()) << name;
  });
  if (!model_->head().defined()) return;  // sums of normalized states hardly move
  // A small step against all gradients lowers the loss by their squared length.
  double squares = 0;
  model_->visit("", [&](const std::string&, Tensor& parameter) {
    if (!parameter.grad().defined()) return;
    for (const float g : parameter.grad().to_floats()) squares += double{g} * double{g};
  });
  const double step = 3e-4 / std::sqrt(squares);  // experts change where a choice flips
  const double before = loss().item();
  model_->visit("", [&](const std::string&, Tensor& parameter) {
    if (!parameter.grad().defined()) return;
    const Tensor gradient = parameter.grad();
    for (int64_t i = 0; i < parameter.elements(); ++i)
      parameter.data<float>()[i] -= static_cast<float>(step) * gradient.data<float>()[i];
    parameter.mark_modified();
  });
  const double fall = before - loss().item();
  EXPECT_NEAR(fall / (step * squares), 1, 0.1);
}

TEST_P(EveryArchitecture, IsTheSameAfterHuggingFace) {
  const NoGrad off;
  const auto other = make_model(model_->hf_config(), "config.json");
  load_weights(*other, Stored(*model_, Naming::hugging_face), Residence::trainable);
  EXPECT_EQ(largest_difference(result_of(*model_, tokens_, Pass::whole({24})),
                               result_of(*other, tokens_, Pass::whole({24}))),
            0);
  for (const auto& [key, value] : GetParam().config.items()) EXPECT_EQ(other->hf_config()[key], value) << key;
}

TEST_P(EveryArchitecture, IsTheSameAfterGguf) {
  if (!GetParam().in_gguf) GTEST_SKIP() << "not in GGUF";
  const NoGrad off;
  const Stored stored(*model_, Naming::gguf);
  const ModelConfig found = model_config(stored);
  const auto other = make_model(*found.config, found.where);
  load_weights(*other, stored, Residence::trainable);
  // Scales and scalings that keys keep as f32 come back rounded.
  EXPECT_LT(largest_difference(result_of(*model_, tokens_, Pass::whole({24})),
                               result_of(*other, tokens_, Pass::whole({24}))),
            2e-5);
  const bool same_type = found.config->at("model_type") == GetParam().config.at("model_type");
  EXPECT_TRUE(same_type || GetParam().name == "distilbert");  // which is a BERT without types of tokens
}

INSTANTIATE_TEST_SUITE_P(Small, EveryArchitecture, testing::ValuesIn(test::small_configs()),
                         [](const auto& info) { return info.param.name; });

// ---- what single families promise ----

std::unique_ptr<Model> small(const std::string& name) {
  for (const auto& config : test::small_configs()) {
    if (config.name != name) continue;
    auto model = make_model(config.config, "config.json");
    fill(*model);
    return model;
  }
  return nullptr;
}

TEST(Decoder, RouterLogitsAreTheSameUnderActivationCheckpointing) {
  const auto model = small("qwen3_moe");
  model->set_trainable(true);
  const std::vector<int32_t> tokens = some_tokens(12, 50);
  const auto run = [&](bool checkpointing) {
    std::vector<Tensor> logits;
    Pass pass = Pass::whole({12});
    pass.checkpoint_activations = checkpointing;
    pass.router_logits = &logits;
    const Tensor hidden = model->forward(tokens, pass);
    EXPECT_EQ(logits.size(), 2u);
    backward(ops::add(load_balancing_loss(logits, 3), ops::sum(hidden)));
    std::vector<std::vector<float>> gradients;
    model->visit("", [&](const std::string& name, Tensor& parameter) {
      if (name.find("router") != std::string::npos) gradients.push_back(parameter.grad().to_floats());
      parameter.clear_grad();
    });
    return gradients;
  };
  EXPECT_EQ(run(false), run(true));
}

TEST(Decoder, WindowsBoundWhatIsKept) {
  const NoGrad off;
  const auto model = small("mistral");
  SequenceState state = model->make_state();
  const std::vector<int32_t> tokens = some_tokens(60, 50);
  model->forward(tokens, Pass::next(state, 60));
  const uint64_t page = 32 * 2 * 16 * sizeof(float);  // tokens x (keys, values) x width
  EXPECT_EQ(state.bytes(), 2 * 2 * page);             // two layers
  for (int i = 0; i < 4; ++i) model->forward({1}, Pass::next(state, 1));
  EXPECT_EQ(state.bytes(), 2 * page);  // nothing in the first pages is seen any more
  for (int i = 0; i < 100; ++i) {
    model->forward({1}, Pass::next(state, 1));
    EXPECT_LE(state.bytes(), 2 * 2 * page);
  }
}

TEST(Decoder, LatentAttentionOfASplitGgufFile) {
  const NoGrad off;
  const auto model = small("deepseek_v2_lite");
  Json config = model->hf_config();
  config["gguf_split_latents"] = true;
  const auto split = make_model(config, "config.json");
  load_weights(*split, Stored(*model, Naming::hugging_face), Residence::trainable);
  EXPECT_FALSE(split->hf_config().contains("gguf_split_latents"));
  const Stored stored(*split, Naming::gguf);
  EXPECT_EQ(stored.find("blk.0.attn_k_b.weight")->shape, (Shape{4, 10, 6}));
  EXPECT_EQ(stored.find("blk.0.attn_v_b.weight")->shape, (Shape{4, 7, 10}));
  const auto again = make_model(config, "config.json");
  load_weights(*again, stored, Residence::trainable);
  const std::vector<int32_t> tokens = some_tokens(12, 50);
  EXPECT_EQ(largest_difference(result_of(*model, tokens, Pass::whole({12})),
                               result_of(*again, tokens, Pass::whole({12}))),
            0);
}

TEST(Decoder, SaysWhatIsImpossible) {
  const auto error = [](const std::string& name, const Json& changes) {
    for (const auto& config : test::small_configs()) {
      if (config.name == name)
        return test::error_of([&] { make_model(test::with(config.config, changes), "config.json"); });
    }
    return std::string("no such configuration");
  };
  EXPECT_EQ(error("llama", {{"num_key_value_heads", 3}}),
            "config.json: num_attention_heads 4 is not a multiple of num_key_value_heads 3");
  EXPECT_EQ(error("llama", {{"hidden_size", 33}}),
            "config.json: hidden_size 33 is not a multiple of num_attention_heads 4");
  EXPECT_EQ(error("llama", {{"hidden_act", "tanhshrink"}}),
            "config.json: key 'hidden_act': activation: expected silu, gelu, gelu_new, quick_gelu, relu, "
            "relu2 or sigmoid, found "
            "'tanhshrink'");
  EXPECT_EQ(error("gpt2", {{"scale_attn_by_inverse_layer_idx", true}}),
            "config.json: key 'scale_attn_by_inverse_layer_idx': expected false; true is not implemented");
  EXPECT_EQ(error("deepseek_v2", {{"topk_method", "noaux_tc"}}),
            "config.json: key 'topk_method': expected greedy or group_limited_greedy, found 'noaux_tc'");
  EXPECT_EQ(error("gemma2", {{"layer_types", {"sliding_attention"}}}),
            "config.json: key 'layer_types': expected 2 entries, found 1");
  const auto bloom = small("gpt2");
  EXPECT_EQ(test::error_of([&] { bloom->forward(std::vector<int32_t>(65, 1), Pass::whole({65})); }),
            "gpt2: position 64 is past the table of 64");
  const auto falcon = small("falcon_rw");
  EXPECT_EQ(test::error_of([&] {
              Metadata metadata;
              const Json config = falcon->hf_config();
              architecture_of(*falcon)->to_gguf(JsonView(config, "config.json"), metadata);
            }),
            "config.json: GGUF has no place for Falcon with ALiBi, biases or attention and network one after "
            "the other");
}

}  // namespace
}  // namespace qkv
