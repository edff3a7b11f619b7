// The Llama line: Llama 1, 2, 3 (Touvron et al., arXiv 2302.13971, 2307.09288; arXiv 2407.21783), Mistral
// (Jiang et al., arXiv 2310.06825), Qwen 2 and 3 (arXiv 2407.10671, 2505.09388), StableLM 2 (Bellagente et
// al., arXiv 2402.17834) and OLMo (Groeneveld et al., arXiv 2402.00838): rotary positions, grouped-query
// attention and SwiGLU under a norm before each; they differ in norms, biases and windows.
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/models/families.h"
#include "qkv/models/hf_config.h"

namespace qkv {
namespace {

// What all members share.
DecoderConfig base_config(const JsonView& config, const char* model_type, const char* hf_class,
                          const SizeKeys& keys = {}) {
  DecoderConfig result = read_sizes(config, model_type, hf_class, keys);
  result.block.mlp.activation = activation_of(config, "hidden_act", "silu");
  result.info.tied_embeddings = config.boolean_or("tie_word_embeddings", false);
  result.block.norm.eps = static_cast<float>(config.number_or("rms_norm_eps", 1e-6));
  return result;
}

void set_norm(DecoderConfig& config) {
  config.final_norm = config.block.norm;
}

DecoderConfig llama_config(const JsonView& config) {
  DecoderConfig result = base_config(config, "llama", "LlamaForCausalLM");
  const bool bias = config.boolean_or("attention_bias", false);
  result.block.attention.qkv_bias = result.block.attention.out_bias = bias;
  result.block.mlp.bias = config.boolean_or("mlp_bias", false);
  result.ropes = {read_rope(config, result)};
  set_norm(result);
  return result;
}

// Without the key the class has its own default; null means none.
int64_t window_of(const JsonView& config, int64_t absent) {
  return config.json().contains("sliding_window") ? config.integer_or("sliding_window", 0) : absent;
}

DecoderConfig mistral_config(const JsonView& config) {
  DecoderConfig result = base_config(config, "mistral", "MistralForCausalLM", {.default_positions = 131072});
  result.block.attention.window = window_of(config, 4096);
  result.ropes = {read_rope(config, result)};
  set_norm(result);
  return result;
}

// Qwen's last layers slide, if use_sliding_window says so.
void set_qwen_windows(const JsonView& config, DecoderConfig& result) {
  const int64_t window = config.boolean_or("use_sliding_window", false) ? window_of(config, 4096) : 0;
  if (window == 0) return;
  const int64_t first = config.integer_or("max_window_layers", 28);
  result.layers =
      read_windows(config, result.info.layers, window, [=](int64_t layer) { return layer >= first; });
}

DecoderConfig qwen2_config(const JsonView& config) {
  DecoderConfig result = base_config(config, "qwen2", "Qwen2ForCausalLM", {.default_positions = 32768});
  result.block.attention.qkv_bias = true;
  set_qwen_windows(config, result);
  result.ropes = {read_rope(config, result)};
  set_norm(result);
  return result;
}

DecoderConfig qwen3_config(const JsonView& config) {
  DecoderConfig result =
      base_config(config, "qwen3", "Qwen3ForCausalLM", {.default_head_dim = 128, .default_positions = 32768});
  const bool bias = config.boolean_or("attention_bias", false);
  result.block.attention.qkv_bias = result.block.attention.out_bias = bias;
  result.block.attention.qk_norm = AttentionConfig::QkNorm::head;
  result.block.attention.qk_norm_config = result.block.norm;
  set_qwen_windows(config, result);
  result.ropes = {read_rope(config, result)};
  set_norm(result);
  return result;
}

DecoderConfig stablelm_config(const JsonView& config) {
  DecoderConfig result = base_config(config, "stablelm", "StableLmForCausalLM", {.default_positions = 4096});
  result.block.norm = {.kind = NormConfig::Kind::layer,
                       .eps = static_cast<float>(config.number_or("layer_norm_eps", 1e-5)),
                       .bias = true};
  result.block.parallel = result.block.shared_norm = config.boolean_or("use_parallel_residual", false);
  result.block.attention.qkv_bias = config.boolean_or("use_qkv_bias", false);
  if (config.boolean_or("qk_layernorm", false)) {
    result.block.attention.qk_norm = AttentionConfig::QkNorm::own_head;
    result.block.attention.qk_norm_config = {.kind = NormConfig::Kind::layer, .eps = result.block.norm.eps};
  }
  result.ropes = {read_rope(config, result, 10000, rotary_dim_of(config, result, 0.25))};
  set_norm(result);
  return result;
}

DecoderConfig olmo_config(const JsonView& config) {
  DecoderConfig result = base_config(config, "olmo", "OlmoForCausalLM");
  result.block.norm = {.kind = NormConfig::Kind::layer, .eps = 1e-5f, .weight = false};
  const bool bias = config.boolean_or("attention_bias", false);
  result.block.attention.qkv_bias = result.block.attention.out_bias = bias;
  result.block.attention.clip = static_cast<float>(config.number_or("clip_qkv", 0));
  result.ropes = {read_rope(config, result)};
  set_norm(result);
  return result;
}

// `turned`: GGUF stores queries and keys for rotary positions that turn neighbours.
std::vector<WeightRow> table(const DecoderConfig& config, bool turned) {
  const Placement whole, q_and_k = {.rope_head = turned ? config.info.head_dim : 0},
                         stacked = {.stacked = true};
  return {
      {"embed", "model.embed_tokens", "token_embd"},
      {"blocks.{}.attn_norm", "model.layers.{}.input_layernorm", "blk.{}.attn_norm"},
      {"blocks.{}.attn.q", "model.layers.{}.self_attn.q_proj", "blk.{}.attn_q", whole, q_and_k},
      {"blocks.{}.attn.k", "model.layers.{}.self_attn.k_proj", "blk.{}.attn_k", whole, q_and_k},
      {"blocks.{}.attn.v", "model.layers.{}.self_attn.v_proj", "blk.{}.attn_v"},
      {"blocks.{}.attn.out", "model.layers.{}.self_attn.o_proj", "blk.{}.attn_output"},
      {"blocks.{}.attn.q_norm", "model.layers.{}.self_attn.q_norm", "blk.{}.attn_q_norm"},
      {"blocks.{}.attn.k_norm", "model.layers.{}.self_attn.k_norm", "blk.{}.attn_k_norm"},
      {"blocks.{}.attn.q_norm.{}", "model.layers.{}.self_attn.q_layernorm.norms.{}", "blk.{}.attn_q_norm",
       whole, stacked},
      {"blocks.{}.attn.k_norm.{}", "model.layers.{}.self_attn.k_layernorm.norms.{}", "blk.{}.attn_k_norm",
       whole, stacked},
      {"blocks.{}.mlp_norm", "model.layers.{}.post_attention_layernorm", "blk.{}.ffn_norm"},
      {"blocks.{}.mlp.gate", "model.layers.{}.mlp.gate_proj", "blk.{}.ffn_gate"},
      {"blocks.{}.mlp.up", "model.layers.{}.mlp.up_proj", "blk.{}.ffn_up"},
      {"blocks.{}.mlp.down", "model.layers.{}.mlp.down_proj", "blk.{}.ffn_down"},
      {"norm", "model.norm", "output_norm"},
      {"head", "lm_head", "output"},
  };
}

template <DecoderConfig (*read)(const JsonView&), bool turned>
std::unique_ptr<Model> make(const JsonView& json) {
  const DecoderConfig config = read(json);
  return std::make_unique<Decoder>(config, table(config, turned), json.json());
}

constexpr Architecture kRows[] = {
    {"llama", "LlamaForCausalLM", "llama", make<llama_config, true>, nullptr, nullptr},
    {"mistral", "MistralForCausalLM", "llama", make<mistral_config, true>, nullptr, nullptr},
    {"qwen2", "Qwen2ForCausalLM", "qwen2", make<qwen2_config, false>, nullptr, nullptr},
    {"qwen3", "Qwen3ForCausalLM", "qwen3", make<qwen3_config, false>, nullptr, nullptr},
    {"stablelm", "StableLmForCausalLM", "stablelm", make<stablelm_config, false>, nullptr, nullptr},
    {"olmo", "OlmoForCausalLM", "olmo", make<olmo_config, true>, nullptr, nullptr},
};

}  // namespace

std::span<const Architecture> llama_architectures() {
  return kRows;
}

}  // namespace qkv
