// Adapters on models: PEFT's own directories against its logits, gradients and merged weights; what is
// written is read again.
#include "qkv/models/adapter.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/core/rng.h"
#include "qkv/formats/checkpoint.h"
#include "qkv/formats/gguf.h"
#include "qkv/formats/hf_directory.h"
#include "qkv/formats/safetensors.h"
#include "qkv/models/bundle.h"
#include "qkv/models/registry.h"
#include "qkv/models/weights.h"
#include "qkv/tensor/ops.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

namespace fs = std::filesystem;

double largest_difference(const Tensor& a, const Tensor& b) {
  const std::vector<float> x = a.to_floats(), y = b.to_floats();
  EXPECT_EQ(x.size(), y.size());
  double largest = 0;
  for (size_t i = 0; i < std::min(x.size(), y.size()); ++i)
    largest = std::max(largest, std::abs(double{x[i]} - double{y[i]}));
  return largest;
}

double largest(const Tensor& a) {
  return largest_difference(a, Tensor::zeros(a.shape()));
}

class PeftReference : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    path_ = test::shared(std::string("fixtures/peft/") + GetParam());
    if (!fs::exists(path_)) GTEST_SKIP() << "reference adapters not found at " << path_;
    bundle_ = load_bundle(base(), {.residence = Residence::trainable, .tokenizer_required = false});
    expected_ = open_checkpoint(path_ + "/expected.safetensors");
    const Tensor ids = expected_->read("input_ids");
    rows_ = ids.dim(0);
    length_ = ids.dim(1);
    for (int64_t i = 0; i < ids.elements(); ++i)
      tokens_.push_back(static_cast<int32_t>(ids.data<int64_t>()[i]));
  }

  std::string base() const {
    const bool gpt2 = std::string(GetParam()).starts_with("gpt2");
    return test::shared(gpt2 ? "fixtures/models/gpt2" : "fixtures/models/llama");
  }
  Model& model() { return *bundle_.model; }
  Tensor hidden() {
    return model().forward(tokens_, Pass::whole(std::vector<int64_t>(static_cast<size_t>(rows_), length_)));
  }
  Tensor logits() {
    const NoGrad off;
    return model().logits(hidden());
  }

  std::string path_;
  Bundle bundle_;
  std::unique_ptr<Checkpoint> expected_;
  std::vector<int32_t> tokens_;
  int64_t rows_ = 0, length_ = 0;
};

TEST_P(PeftReference, Logits) {
  const Tensor plain = logits();
  const auto adapter = Adapter::load(model(), path_);
  EXPECT_LT(largest_difference(logits(), expected_->read("logits")), 1e-4);
  EXPECT_GT(largest_difference(plain, expected_->read("logits")), 1e-2) << "the adapter does nothing";
  adapter->control().enabled = false;
  EXPECT_EQ(largest_difference(logits(), plain), 0);
}

TEST_P(PeftReference, Gradients) {
  const auto adapter = Adapter::load(model(), path_);
  model().set_trainable(false);
  adapter->set_trainable(true);
  for (bool checkpointing : {false, true}) {
    std::vector<int32_t> targets;
    for (int64_t r = 0; r < rows_; ++r) {
      for (int64_t t = 0; t < length_; ++t)
        targets.push_back(t + 1 < length_ ? tokens_[static_cast<size_t>(r * length_ + t + 1)] : ops::kIgnore);
    }
    Pass pass = Pass::whole(std::vector<int64_t>(static_cast<size_t>(rows_), length_));
    pass.checkpoint_activations = checkpointing;
    const Tensor total = model().cross_entropy(model().forward(tokens_, pass), targets);
    backward(ops::scale(total, 1.0f / static_cast<float>(rows_ * (length_ - 1))));
    // The gradients are written as an adapter of the same kind and compared in the file's names.
    adapter->visit("", [](const std::string& name, Tensor& tensor) {
      ASSERT_TRUE(tensor.grad().defined()) << name;
      tensor.copy_from(tensor.grad());
      tensor.clear_grad();
    });
    test::TemporaryDirectory directory;
    adapter->save_peft(directory.path());
    const auto written = open_checkpoint(directory / "adapter_model.safetensors");
    for (const TensorEntry& entry : written->entries()) {
      const std::string name = "grad." + entry.name;
      const Tensor want = expected_->read(expected_->find(name) != nullptr ? name : name + ".weight");
      EXPECT_LT(largest_difference(written->read(entry.name), want), 1e-4 * largest(want)) << name;
    }
    adapter->restore_peft(path_);
  }
}

TEST_P(PeftReference, MergedWeights) {
  const auto adapter = Adapter::load(model(), path_);
  const Tensor before = logits();
  merge_adapters(model());
  EXPECT_LT(largest_difference(logits(), before), 1e-4);
  test::TemporaryDirectory directory;
  save_weights(model(), directory.path(), DType::f32, 1ULL << 40);
  const auto merged = open_checkpoint(directory / "model.safetensors");
  int compared = 0;
  for (const TensorEntry& entry : expected_->entries()) {
    if (!entry.name.starts_with("merged.")) continue;
    EXPECT_LT(largest_difference(merged->read(entry.name.substr(7)), expected_->read(entry.name)), 1e-5)
        << entry.name;
    ++compared;
  }
  EXPECT_GT(compared, 0);
}

TEST_P(PeftReference, WhatIsWrittenIsTheSameAdapter) {
  const auto adapter = Adapter::load(model(), path_);
  test::TemporaryDirectory directory;
  adapter->save_peft(directory.path());
  const auto ours = open_checkpoint(directory / "adapter_model.safetensors"),
             theirs = open_checkpoint(path_ + "/adapter_model.safetensors");
  ASSERT_EQ(ours->entries().size(), theirs->entries().size());
  for (const TensorEntry& entry : theirs->entries()) {
    ASSERT_NE(ours->find(entry.name), nullptr) << entry.name;
    EXPECT_EQ(ours->find(entry.name)->shape, entry.shape);
    EXPECT_EQ(largest_difference(ours->read(entry.name), theirs->read(entry.name)), 0) << entry.name;
  }
  const Json our_config = load_json(directory / "adapter_config.json"),
             their_config = load_json(path_ + "/adapter_config.json");
  for (const char* key : {"peft_type", "r", "lora_alpha", "target_modules", "feedforward_modules", "use_dora",
                          "use_rslora", "fan_in_fan_out"}) {
    if (their_config.contains(key) && !(std::string(key) == "fan_in_fan_out" && !our_config.contains(key))) {
      EXPECT_EQ(our_config[key], their_config[key]) << key;
    }
  }
}

// Also shows that llama.cpp's order of rows in q and k is undone.
TEST_P(PeftReference, ThroughGguf) {
  const auto adapter = Adapter::load(model(), path_);
  const Tensor before = logits();
  test::TemporaryDirectory directory;
  if (std::string(GetParam()) == "llama_dora" || std::string(GetParam()) == "llama_ia3") {
    EXPECT_NE(test::error_of([&] {
                adapter->save_gguf(directory / "a.gguf", model());
              }).find("expected a LoRA adapter"),
              std::string::npos);
    return;
  }
  adapter->save_gguf(directory / "a.gguf", model());
  const Bundle other =
      load_bundle(base(), {.tokenizer_required = false, .adapters = {{directory / "a.gguf"}}});
  const NoGrad off;
  const Tensor after = other.model->logits(
      other.model->forward(tokens_, Pass::whole(std::vector<int64_t>(static_cast<size_t>(rows_), length_))));
  EXPECT_LT(largest_difference(after, before), 1e-5);
  const auto file = open_checkpoint(directory / "a.gguf");
  const bool gpt2 = std::string(GetParam()) == "gpt2_lora";
  EXPECT_NE(file->find(gpt2 ? "blk.0.attn_qkv.weight.lora_b" : "blk.0.attn_q.weight.lora_b"), nullptr);
  EXPECT_EQ(file->metadata().number("adapter.lora.alpha"), 8);
  if (gpt2) return;
  // Rows of a head: halves become neighbours.
  const Tensor hf = open_checkpoint(path_ + "/adapter_model.safetensors")
                        ->read("base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight");
  const Tensor gguf = file->read("blk.0.attn_q.weight.lora_b");
  const int64_t half = model().info().head_dim / 2;
  EXPECT_EQ(gguf.data<float>()[4], hf.data<float>()[half * 4]);
}

INSTANTIATE_TEST_SUITE_P(Adapters, PeftReference,
                         testing::Values("llama_lora", "llama_dora", "gpt2_lora", "llama_ia3"),
                         [](const auto& info) { return std::string(info.param); });

// ---- without reference files ----

std::unique_ptr<Model> small_model(const char* text) {
  auto model = make_model(parse_json(text, "test"), "test");
  initialize_weights(*model, 1, 0.3f);
  return model;
}

constexpr const char* kLlama =
    R"({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 32, "num_hidden_layers": 2,
  "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48, "vocab_size": 20, "max_position_embeddings": 32})";
constexpr const char* kNeoX =
    R"({"model_type": "gpt_neox", "architectures": ["GPTNeoXForCausalLM"], "hidden_size": 32, "num_hidden_layers": 2,
  "num_attention_heads": 4, "intermediate_size": 48, "vocab_size": 20, "max_position_embeddings": 32})";
constexpr const char* kMamba =
    R"({"model_type": "mamba", "architectures": ["MambaForCausalLM"], "hidden_size": 32, "num_hidden_layers": 2,
  "state_size": 4, "vocab_size": 20})";

Tensor run(Model& model) {
  const NoGrad off;
  return model.logits(model.forward({1, 2, 3, 4, 5, 6}, Pass::whole({4, 2})));
}

AdapterConfig all_linear(AdapterConfig::Kind kind) {
  AdapterConfig config;
  config.kind = kind;
  config.rank = 4;
  config.targets = {"all-linear"};
  if (kind == AdapterConfig::Kind::ia3) config.feedforward = {"down_proj", "dense_4h_to_h", "out_proj"};
  return config;
}

void scramble(Adapter& adapter) {
  uint64_t stream = 0;
  adapter.visit("", [&](const std::string&, Tensor& tensor) {
    Rng rng(5, stream++);
    for (int64_t i = 0; i < tensor.elements(); ++i) tensor.data<float>()[i] += 0.2f * rng.normal();
  });
}

TEST(NewAdapter, ChangesNothingAtFirstAndIsReadAsItWasWritten) {
  for (const char* text : {kLlama, kNeoX, kMamba}) {
    for (auto kind : {AdapterConfig::Kind::lora, AdapterConfig::Kind::ia3, AdapterConfig::Kind::vera}) {
      for (bool dora : {false, true}) {
        if (dora && kind != AdapterConfig::Kind::lora) continue;
        SCOPED_TRACE(std::string(text).substr(16, 10) + " " + std::to_string(static_cast<int>(kind)));
        const auto model = small_model(text);
        const Tensor plain = run(*model);
        AdapterConfig config = all_linear(kind);
        config.decomposed = dora;
        const auto adapter = Adapter::create(*model, config, 3);
        EXPECT_LT(largest_difference(run(*model), plain), 1e-5);
        scramble(*adapter);
        const Tensor adapted = run(*model);
        EXPECT_GT(largest_difference(adapted, plain), 1e-3);
        test::TemporaryDirectory directory;
        adapter->save_peft(directory.path());
        const auto other = small_model(text);
        Adapter::load(*other, directory.path());
        EXPECT_EQ(largest_difference(run(*other), adapted), 0);
        const auto half = small_model(text);
        const auto scaled = Adapter::load(*half, directory.path(), 0.5f);
        const double between = largest_difference(run(*half), plain);
        EXPECT_GT(between, 0);
        EXPECT_GT(largest_difference(run(*half), adapted), 0);
        merge_adapters(*other);
        EXPECT_LT(largest_difference(run(*other), adapted), 1e-4);
      }
    }
  }
}

TEST(NewAdapter, GptNeoXsHeadsAreCutOutOfTheFusedProjection) {
  const auto model = small_model(kNeoX);
  AdapterConfig config;
  config.rank = 2;
  config.targets = {"query_key_value"};
  const auto adapter = Adapter::create(*model, config, 3);
  ASSERT_EQ(adapter->modules().size(), 2u);
  EXPECT_EQ(adapter->modules()[0].name, "gpt_neox.layers.0.attention.query_key_value");
  EXPECT_EQ(adapter->modules()[0].parts.size(), 3u);
  EXPECT_EQ(adapter->parameter_count(), 2 * (2 * 32 + 2 * 96));
}

TEST(NewAdapter, TargetsByNamePatternLayerAndRank) {
  const auto model = small_model(kLlama);
  AdapterConfig config;
  config.target_pattern = ".*\\.(q|v)_proj";
  config.layers = {1};
  config.rank = 4;
  config.alpha = 8;
  config.rank_pattern = {{"v_proj", 2}};
  config.rank_stabilized = true;
  const auto adapter = Adapter::create(*model, config, 3);
  ASSERT_EQ(adapter->modules().size(), 2u);
  EXPECT_EQ(adapter->modules()[0].name, "model.layers.1.self_attn.q_proj");
  EXPECT_EQ(adapter->modules()[0].rank, 4);
  EXPECT_EQ(adapter->modules()[0].scaling, 4);
  EXPECT_EQ(adapter->modules()[1].rank, 2);
  config.layers = {7};
  EXPECT_NE(test::error_of([&] {
              Adapter::create(*model, config, 3);
            }).find("no linear layer is a target; there are model.layers.0.self_attn.q_proj"),
            std::string::npos);
}

class WrittenAdapter : public testing::Test {
 protected:
  void SetUp() override {
    const auto model = small_model(kLlama);
    AdapterConfig config;
    config.rank = 4;
    config.targets = {"q_proj"};
    Adapter::create(*model, config, 3)->save_peft(directory_.path());
  }
  void edit(const std::string& key, const Json& value) {
    Json json = load_json(directory_ / "adapter_config.json");
    json[key] = value;
    save_json(directory_ / "adapter_config.json", json);
  }
  std::string error() {
    const auto model = small_model(kLlama);
    return test::error_of([&] { Adapter::load(*model, directory_.path()); });
  }
  void expect_error(const std::string& part) {
    const std::string found = error();
    EXPECT_NE(found.find(part), std::string::npos) << found;
  }
  test::TemporaryDirectory directory_;
};

TEST_F(WrittenAdapter, AnotherRankIsAnError) {
  edit("r", 8);
  expect_error(
      "tensor 'base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight': expected floating point of "
      "shape (8, 32), found f32 (4, 32)");
}

TEST_F(WrittenAdapter, MissingAndExtraTensorsAreErrors) {
  edit("target_modules", {"q_proj", "k_proj"});
  expect_error("k_proj.lora_A.weight' is missing");
  edit("target_modules", {"q_proj"});
  edit("modules_to_save", {"lm_head"});
  expect_error("tensor 'base_model.model.lm_head.weight' is missing");
  edit("modules_to_save", nullptr);
  edit("layers_to_transform", {0});
  expect_error("layers.1.self_attn.q_proj.lora_A.weight' belongs to no module that is a target");
}

TEST_F(WrittenAdapter, WhatIsNotImplementedIsRefusedByName) {
  edit("peft_type", "LOHA");
  expect_error("expected LORA, IA3 or VERA, found 'LOHA'");
  edit("peft_type", "LORA");
  edit("bias", "all");
  expect_error("key 'bias'");
}

TEST_F(WrittenAdapter, OtherFilesAreNoAdapters) {
  fs::remove(directory_ / "adapter_model.safetensors");
  expect_error("expected adapter_model.safetensors or adapter_model.bin");
  fs::remove(directory_ / "adapter_config.json");
  expect_error("found no adapter_config.json");
}

TEST(AdapterRequests, OfTheCommandLine) {
  EXPECT_EQ(parse_adapter_request("a/b").path, "a/b");
  EXPECT_EQ(parse_adapter_request("a/b=0.5").scale, 0.5f);
  EXPECT_EQ(parse_adapter_request("a=b=-1").path, "a=b");
  EXPECT_NE(test::error_of([] {
              parse_adapter_request("a=half");
            }).find("expected PATH or PATH=SCALE, found 'a=half'"),
            std::string::npos);
}

}  // namespace
}  // namespace qkv
