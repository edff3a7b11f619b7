// Small random models with a vocabulary, as directories, and text to calibrate them with.
#pragma once

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "qkv/models/bundle.h"
#include "qkv/models/registry.h"
#include "qkv/models/weights.h"
#include "qkv/tensor/autograd.h"
#include "qkv/text/bpe_trainer.h"
#include "tests/support/test_paths.h"

namespace qkv::test {

inline std::string words(size_t count) {
  const char* all[] = {"the ", "cat ",  "sat ", "on ",  "a ",    "mat ",
                       "and ", "dogs ", "ran ", "far ", "away ", "home. "};
  Rng rng(4);
  std::string text;
  for (size_t i = 0; i < count; ++i) text += all[rng.below(12)];
  return text;
}

inline std::shared_ptr<const Tokenizer> small_tokenizer() {
  BpeTrainerOptions options;
  options.vocab_size = 272;
  bool done = false;
  return train_bpe(
      [&](std::string& document) {
        if (done) return false;
        document = words(500);
        done = true;
        return true;
      },
      options);
}

// Sizes to which every method applies; `changes` are other keys.
inline Json llama_config(const Json& changes = Json::object()) {
  Json config = {{"architectures", {"LlamaForCausalLM"}},
                 {"model_type", "llama"},
                 {"vocab_size", 272},
                 {"hidden_size", 64},
                 {"intermediate_size", 96},
                 {"num_hidden_layers", 3},
                 {"num_attention_heads", 4},
                 {"num_key_value_heads", 2},
                 {"max_position_embeddings", 64},
                 {"rms_norm_eps", 1e-5},
                 {"tie_word_embeddings", false}};
  config.update(changes);
  return config;
}

// With weights that make the layers' inputs unequal and dependent: norms with gains of all sizes.
inline std::unique_ptr<Model> random_model(const Json& config, uint64_t seed = 3) {
  auto model = make_model(config, "test");
  initialize_weights(*model, seed, 0.15f);
  uint64_t stream = 0;
  model->visit("", [&](const std::string& name, Tensor& parameter) {
    Rng rng(seed, 1000 + stream++);
    if (parameter.shape().rank() != 1) return;
    const bool is_bias = name.ends_with(".bias");
    for (int64_t i = 0; i < parameter.elements(); ++i)
      parameter.data<float>()[i] = is_bias ? 0.1f * rng.normal() : std::exp(0.8f * rng.normal());
  });
  return model;
}

inline void write_model(Model& model, const std::string& directory, DType type = DType::f32) {
  std::filesystem::create_directory(directory);
  SaveOptions options;
  options.type = type;
  save_bundle(directory, model, small_tokenizer().get(), options);
}

inline std::map<std::string, Tensor> parameters_of(Model& model) {
  std::map<std::string, Tensor> parameters;
  model.visit(
      "", [&](const std::string& name, Tensor& parameter) { parameters[name] = parameter.to(DType::f32); });
  return parameters;
}

inline std::vector<float> logits_of(const Model& model, const std::vector<int32_t>& tokens) {
  const NoGrad off;
  return model.logits(model.forward(tokens, Pass::whole({static_cast<int64_t>(tokens.size())}))).to_floats();
}

inline double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double largest = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    largest = std::max(largest, std::abs(double{a[i]} - b[i]));
  return largest;
}

}  // namespace qkv::test
