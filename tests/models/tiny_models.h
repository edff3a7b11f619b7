// Tiny models with random weights of every kind of architecture, as Hugging Face directories.
#pragma once

#include <cstring>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "qkv/core/error.h"
#include "qkv/core/rng.h"
#include "qkv/models/bundle.h"
#include "qkv/models/registry.h"

namespace qkv::test {

struct TinyModel {
  const char* name;
  const char* config;
};

// What GGUF stores otherwise than Hugging Face: turned rotary rows (llama), biases (qwen2), fused rows (phi3,
// gpt_neox), stacked experts (mixtral), transposed matrices (gpt2), 1 + w (gemma), -exp(w) and convolutions
// (mamba).
inline const std::vector<TinyModel>& tiny_models() {
  static const std::vector<TinyModel> models = {
      {"llama",
       R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 40, "hidden_size": 32,
        "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": false})"},
      {"llama3",
       R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 40, "hidden_size": 32,
        "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
        "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": true,
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32}})"},
      {"qwen2",
       R"({"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "vocab_size": 40, "hidden_size": 32,
        "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": true})"},
      {"mixtral",
       R"({"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "vocab_size": 40, "hidden_size": 32,
        "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "num_local_experts": 4, "num_experts_per_tok": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "tie_word_embeddings": false})"},
      {"phi3",
       R"({"architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "vocab_size": 40, "hidden_size": 32,
        "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 64, "original_max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": false})"},
      {"gpt_neox",
       R"({"architectures": ["GPTNeoXForCausalLM"], "model_type": "gpt_neox", "vocab_size": 40, "hidden_size": 32,
        "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64,
        "rotary_pct": 0.25, "rotary_emb_base": 10000, "hidden_act": "gelu", "layer_norm_eps": 1e-5,
        "use_parallel_residual": true, "tie_word_embeddings": false})"},
      {"gpt2",
       R"({"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": 40, "n_embd": 32, "n_layer": 2,
        "n_head": 4, "n_positions": 64, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5})"},
      {"gemma",
       R"({"architectures": ["GemmaForCausalLM"], "model_type": "gemma", "vocab_size": 40, "hidden_size": 32,
        "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 8,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "hidden_act": "gelu_pytorch_tanh"})"},
      {"mamba",
       R"({"architectures": ["MambaForCausalLM"], "model_type": "mamba", "vocab_size": 40, "hidden_size": 32,
        "intermediate_size": 64, "state_size": 8, "conv_kernel": 4, "time_step_rank": 4, "expand": 2, "num_hidden_layers": 2,
        "layer_norm_epsilon": 1e-5, "use_bias": false, "use_conv_bias": true})"},
  };
  return models;
}

// Writes it with values that tell every element from every other.
inline void write_tiny_model(const TinyModel& tiny, const std::string& directory, DType type) {
  const Json config = parse_json(tiny.config, tiny.name);
  const auto model = make_model(config, tiny.name);
  initialize_weights(*model, 11, 0.2f);
  uint64_t stream = 0;
  model->visit("", [&](const std::string&, Tensor& parameter) {
    Rng rng(11, 1000 + stream++);
    for (int64_t i = 0; i < parameter.elements(); ++i) parameter.data<float>()[i] += 0.1f * rng.normal();
  });
  SaveOptions options;
  options.type = type;
  save_bundle(directory, *model, nullptr, options);
}

// "" if two checkpoints hold the same tensors of the same types and bits; otherwise the first difference.
inline std::string difference(const Checkpoint& a, const Checkpoint& b) {
  for (const auto* pair : {&a, &b}) {
    const Checkpoint& other = pair == &a ? b : a;
    for (const auto& entry : pair->entries()) {
      if (other.find(entry.name) == nullptr) return entry.name + " is only in " + pair->path();
    }
  }
  for (const auto& entry : a.entries()) {
    const TensorEntry& other = *b.find(entry.name);
    if (entry.type != other.type || !(entry.shape == other.shape)) {
      return fmt::format("{}: {} {} and {} {}", entry.name, name(entry.type), entry.shape.str(),
                         name(other.type), other.shape.str());
    }
    if (std::memcmp(a.read(entry.name).raw(), b.read(entry.name).raw(), entry.bytes) != 0)
      return entry.name + " has other bits";
  }
  return "";
}

}  // namespace qkv::test
