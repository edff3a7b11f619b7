// The dense members of the Llama line: Llama 1, 2, 3 (Touvron et al., arXiv 2302.13971, 2307.09288; arXiv
// 2407.21783), Mistral (Jiang et al., arXiv 2310.06825), Qwen 2 and 3 (arXiv 2407.10671, 2505.09388),
// StableLM 2 (Bellagente et al., arXiv 2402.17834), OLMo (Groeneveld et al., arXiv 2402.00838) and OLMo 2
// (arXiv 2501.00656): rotary positions, grouped-query attention and SwiGLU; they differ in norms, biases and
// windows.
#include <nlohmann/json.hpp>

#include "qkv/models/families.h"
#include "qkv/models/llama_line.h"

namespace qkv {
namespace {

void set_attention_bias(const JsonView& config, DecoderConfig& result) {
  result.block.attention.qkv_bias = result.block.attention.out_bias =
      config.boolean_or("attention_bias", false);
}

// ---- Llama, Mistral ----

DecoderConfig llama_config(const JsonView& config) {
  DecoderConfig result = llama_line_config(config, "llama", "LlamaForCausalLM");
  set_attention_bias(config, result);
  result.block.mlp.bias = config.boolean_or("mlp_bias", false);
  return result;
}

DecoderConfig mistral_config(const JsonView& config) {
  DecoderConfig result =
      llama_line_config(config, "mistral", "MistralForCausalLM", {.default_positions = 131072});
  result.block.attention.window = sliding_window(config, 4096);
  return result;
}

// In GGUF Mistral and Mixtral are "llama", too: what has experts is left to its own row.
Json llama_from_gguf(const Metadata& metadata, const Checkpoint& checkpoint) {
  const GgufKeys keys(metadata, checkpoint);
  if (keys.integer_or("expert_count", 0) > 0 || keys.integer_or("attention.sliding_window", 0) > 0)
    return nullptr;
  Json config = llama_line_from_gguf(keys, "llama", "LlamaForCausalLM");
  config["attention_bias"] = keys.has_tensor("blk.0.attn_q.bias");
  config["mlp_bias"] = keys.has_tensor("blk.0.ffn_up.bias");
  return config;
}

Json mistral_from_gguf(const Metadata& metadata, const Checkpoint& checkpoint) {
  const GgufKeys keys(metadata, checkpoint);
  if (keys.integer_or("expert_count", 0) > 0) return nullptr;
  Json config = llama_line_from_gguf(keys, "mistral", "MistralForCausalLM");
  config["sliding_window"] = keys.integer("attention.sliding_window");
  return config;
}

// ---- Qwen ----

DecoderConfig qwen2_config(const JsonView& config) {
  DecoderConfig result = llama_line_config(config, "qwen2", "Qwen2ForCausalLM", {.default_positions = 32768});
  result.block.attention.qkv_bias = true;
  set_qwen_windows(config, result);
  return result;
}

DecoderConfig qwen3_config(const JsonView& config) {
  DecoderConfig result = llama_line_config(config, "qwen3", "Qwen3ForCausalLM",
                                           {.default_positions = 32768, .default_head_dim = 128});
  set_attention_bias(config, result);
  result.block.attention.qk_norm = AttentionConfig::QkNorm::head;
  result.block.attention.qk_norm_config = result.block.norm;
  set_qwen_windows(config, result);
  return result;
}

Json qwen2_from_gguf(const Metadata& metadata, const Checkpoint& checkpoint) {
  return llama_line_from_gguf(GgufKeys(metadata, checkpoint), "qwen2", "Qwen2ForCausalLM");
}

Json qwen3_from_gguf(const Metadata& metadata, const Checkpoint& checkpoint) {
  const GgufKeys keys(metadata, checkpoint);
  Json config = llama_line_from_gguf(keys, "qwen3", "Qwen3ForCausalLM");
  config["head_dim"] = keys.shape_of("blk.0.attn_q_norm.weight")[0];
  config["attention_bias"] = keys.has_tensor("blk.0.attn_q.bias");
  return config;
}

// ---- StableLM ----

DecoderConfig stablelm_config(const JsonView& config) {
  DecoderConfig result =
      llama_line_config(config, "stablelm", "StableLmForCausalLM", {.default_positions = 4096});
  result.block.norm = {.kind = NormConfig::Kind::layer,
                       .eps = static_cast<float>(config.number_or("layer_norm_eps", 1e-5)),
                       .bias = true};
  result.final_norm = result.block.norm;
  result.block.parallel = result.block.shared_norm = config.boolean_or("use_parallel_residual", false);
  result.says_parallel = true;
  result.block.attention.qkv_bias = config.boolean_or("use_qkv_bias", false);
  if (config.boolean_or("qk_layernorm", false)) {
    result.block.attention.qk_norm = AttentionConfig::QkNorm::own_head;
    result.block.attention.qk_norm_config = {.kind = NormConfig::Kind::layer, .eps = result.block.norm.eps};
  }
  result.ropes = {read_rope(config, result, 10000, rotary_dim_of(config, result, 0.25))};
  return result;
}

std::vector<WeightRow> stablelm_table(const DecoderConfig& config) {
  std::vector<WeightRow> rows = qwen_table(config);
  const Placement whole, stacked = {.stacked = true};
  rows.push_back({"blocks.{}.attn.q_norm.{}", "model.layers.{}.self_attn.q_layernorm.norms.{}",
                  "blk.{}.attn_q_norm", whole, stacked});
  rows.push_back({"blocks.{}.attn.k_norm.{}", "model.layers.{}.self_attn.k_layernorm.norms.{}",
                  "blk.{}.attn_k_norm", whole, stacked});
  return rows;
}

Json stablelm_from_gguf(const Metadata& metadata, const Checkpoint& checkpoint) {
  const GgufKeys keys(metadata, checkpoint);
  Json config = llama_line_from_gguf(keys, "stablelm", "StableLmForCausalLM");
  const double head_dim =
      static_cast<double>(keys.integer("embedding_length") / keys.integer("attention.head_count"));
  config["layer_norm_eps"] = keys.number("attention.layer_norm_epsilon");
  config["partial_rotary_factor"] = static_cast<double>(keys.integer("rope.dimension_count")) / head_dim;
  config["use_parallel_residual"] =
      keys.boolean_or("use_parallel_residual", !keys.has_tensor("blk.0.ffn_norm.weight"));
  config["use_qkv_bias"] = keys.has_tensor("blk.0.attn_q.bias");
  config["qk_layernorm"] = keys.has_tensor("blk.0.attn_q_norm.weight");
  return config;
}

// ---- OLMo ----

DecoderConfig olmo_config(const JsonView& config) {
  DecoderConfig result = llama_line_config(config, "olmo", "OlmoForCausalLM");
  result.block.norm = {.kind = NormConfig::Kind::layer, .eps = 1e-5f, .weight = false};
  result.final_norm = result.block.norm;
  set_attention_bias(config, result);
  result.block.attention.clip = static_cast<float>(config.number_or("clip_qkv", 0));
  return result;
}

Json olmo_from_gguf(const Metadata& metadata, const Checkpoint& checkpoint) {
  const GgufKeys keys(metadata, checkpoint);
  Json config = llama_line_from_gguf(keys, "olmo", "OlmoForCausalLM");
  if (keys.has("attention.clamp_kqv")) config["clip_qkv"] = keys.number("attention.clamp_kqv");
  return config;
}

// Norms of what attention and network give instead of what they get, and of all queries and keys together.
DecoderConfig olmo2_config(const JsonView& config) {
  DecoderConfig result = llama_line_config(config, "olmo2", "Olmo2ForCausalLM");
  result.block.norm.eps = static_cast<float>(config.number_or("rms_norm_eps", 1e-5));
  result.final_norm = result.block.norm;
  set_attention_bias(config, result);
  result.block.norms = BlockConfig::Norms::after;
  result.block.attention.qk_norm = AttentionConfig::QkNorm::whole;
  result.block.attention.qk_norm_config = result.block.norm;
  return result;
}

std::vector<WeightRow> olmo2_table(const DecoderConfig& config) {
  std::vector<WeightRow> rows = qwen_table(config);
  rows.push_back(
      {"blocks.{}.attn_post_norm", "model.layers.{}.post_attention_layernorm", "blk.{}.post_attention_norm"});
  rows.push_back(
      {"blocks.{}.mlp_post_norm", "model.layers.{}.post_feedforward_layernorm", "blk.{}.post_ffw_norm"});
  return rows;
}

Json olmo2_from_gguf(const Metadata& metadata, const Checkpoint& checkpoint) {
  return llama_line_from_gguf(GgufKeys(metadata, checkpoint), "olmo2", "Olmo2ForCausalLM");
}

}  // namespace

std::span<const Architecture> llama_architectures() {
  static constexpr Architecture rows[] = {
      {"llama",
       "LlamaForCausalLM",
       "llama",
       make_decoder<llama_config, llama_table>,
       decoder_to_gguf<llama_config, "llama">,
       llama_from_gguf,
       {},
       decoder_gguf_tensors<llama_config>},
      {"mistral",
       "MistralForCausalLM",
       "llama",
       make_decoder<mistral_config, llama_table>,
       decoder_to_gguf<mistral_config, "llama">,
       mistral_from_gguf,
       {},
       decoder_gguf_tensors<mistral_config>},
      {"qwen2",
       "Qwen2ForCausalLM",
       "qwen2",
       make_decoder<qwen2_config, qwen_table>,
       decoder_to_gguf<qwen2_config, "qwen2">,
       qwen2_from_gguf,
       {},
       decoder_gguf_tensors<qwen2_config>},
      {"qwen3",
       "Qwen3ForCausalLM",
       "qwen3",
       make_decoder<qwen3_config, qwen_table>,
       decoder_to_gguf<qwen3_config, "qwen3">,
       qwen3_from_gguf,
       {},
       decoder_gguf_tensors<qwen3_config>},
      {"stablelm", "StableLmForCausalLM", "stablelm", make_decoder<stablelm_config, stablelm_table>,
       decoder_to_gguf<stablelm_config, "stablelm">, stablelm_from_gguf},
      {"olmo", "OlmoForCausalLM", "olmo", make_decoder<olmo_config, llama_table>,
       decoder_to_gguf<olmo_config, "olmo">, olmo_from_gguf},
      {"olmo2", "Olmo2ForCausalLM", "olmo2", make_decoder<olmo2_config, olmo2_table>,
       decoder_to_gguf<olmo2_config, "olmo2">, olmo2_from_gguf},
  };
  return rows;
}

}  // namespace qkv
