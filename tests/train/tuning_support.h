// A model, data and a loop small enough to be trained within a test.
#pragma once

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "qkv/core/rng.h"
#include "qkv/models/registry.h"
#include "qkv/models/score_model.h"
#include "qkv/models/weights.h"
#include "qkv/train/recipes/kto.h"
#include "qkv/train/recipes/pairs.h"
#include "qkv/train/trainer.h"

namespace qkv::test {

constexpr const char* kSmallLlama =
    R"({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 32, "num_hidden_layers": 2,
  "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48, "vocab_size": 40, "max_position_embeddings": 64})";

// LoRA of rank 4 with dropout over every linear layer.
inline AdapterConfig small_adapter() {
  AdapterConfig config;
  config.rank = 4;
  config.targets = {"all-linear"};
  config.dropout = 0.1;
  return config;
}

inline Bundle small_model(bool score = false, uint64_t seed = 1) {
  Bundle bundle;
  const Json config = parse_json(kSmallLlama, "test");
  bundle.model = score ? make_score_model(config, "test", true) : make_model(config, "test");
  initialize_weights(*bundle.model, seed, 0.1f);
  bundle.model->set_trainable(true);
  return bundle;
}

inline void adapt(Bundle& bundle, const AdapterConfig& config) {
  bundle.model->set_trainable(false);
  bundle.adapters.push_back(Adapter::create(*bundle.model, config, 7));
}

inline Bundle small_bundle(bool adapted, bool score = false) {
  Bundle bundle = small_model(score);
  if (!adapted) return bundle;
  AdapterConfig config = small_adapter();
  if (score) config.modules_to_save = {"score"};
  adapt(bundle, config);
  return bundle;
}

inline Adapter* adapter_of(const Bundle& bundle) {
  return bundle.adapters.empty() ? nullptr : bundle.adapters[0].get();
}

// A prompt of three tokens and an answer that repeats one of them, or with `other` a fixed one.
inline TokenSample sample_of(uint64_t index, bool other) {
  Rng rng(3, index);
  TokenSample sample;
  for (int i = 0; i < 3; ++i) sample.tokens.push_back(static_cast<int32_t>(2 + rng.below(30)));
  const int32_t said = other ? 35 : sample.tokens[1];
  for (uint64_t i = 0; i < 2 + index % 4; ++i) sample.tokens.push_back(said);
  sample.tokens.push_back(1);
  sample.learned.assign(sample.tokens.size(), 1);
  std::fill_n(sample.learned.begin(), 3, 0);
  return sample;
}

inline std::vector<TokenSample> samples_of(size_t n, uint64_t first = 0) {
  std::vector<TokenSample> samples;
  for (size_t i = 0; i < n; ++i) samples.push_back(sample_of(first + i, false));
  return samples;
}

inline std::vector<PreferencePair> pairs_of(size_t n, uint64_t first = 0) {
  std::vector<PreferencePair> pairs;
  for (size_t i = 0; i < n; ++i) pairs.push_back({sample_of(first + i, false), sample_of(first + i, true)});
  return pairs;
}

inline std::vector<LabelledSample> labelled_of(size_t n, uint64_t first = 0) {
  std::vector<LabelledSample> samples;
  for (size_t i = 0; i < n; ++i) samples.push_back({sample_of(first + i / 2, i % 2 == 1), i % 2 == 0});
  return samples;
}

inline TrainerConfig trainer_config(int64_t steps) {
  TrainerConfig config;
  config.steps = steps;
  config.optimizer.lr = 1e-2;
  config.optimizer.kind = "adamw";
  config.schedule.kind = "constant";
  config.schedule.total_steps = 8;
  config.accumulation = 2;
  config.eval_interval = 0;
  return config;
}

inline std::vector<std::vector<float>> trained_values(Bundle& bundle) {
  std::vector<std::vector<float>> values;
  const auto add = [&](const std::string&, Tensor& tensor) { values.push_back(tensor.to_floats()); };
  if (bundle.adapters.empty()) {
    bundle.model->visit("", add);
  } else {
    bundle.adapters[0]->visit("", add);
  }
  return values;
}

// Logits of some tokens, off the tape.
inline std::vector<float> logits_of(const Bundle& bundle) {
  const NoGrad off;
  const std::vector<int32_t> tokens = {3, 17, 5, 17, 17, 1};
  return bundle.model->logits(bundle.model->forward(tokens, Pass::whole({6}))).to_floats();
}

}  // namespace qkv::test
