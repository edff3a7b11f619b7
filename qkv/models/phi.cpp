// Phi 1.5 and 2 (Li et al., arXiv 2309.05463): attention and network side by side behind one LayerNorm. Phi-3
// and 4 (Abdin et al., arXiv 2404.14219): the Llama line's block with fused projections and LongRoPE.
// Phi-3.5-MoE: the same with LayerNorm and a sparse mixer over experts.
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/models/families.h"
#include "qkv/models/fused_rows.h"
#include "qkv/models/llama_line.h"

namespace qkv {
namespace {

// ---- Phi ----

DecoderConfig phi_config(const JsonView& config) {
  DecoderConfig result = read_sizes(config, "phi", "PhiForCausalLM");
  result.block.norm = {.kind = NormConfig::Kind::layer,
                       .eps = static_cast<float>(config.number_or("layer_norm_eps", 1e-5)),
                       .bias = true};
  result.final_norm = result.block.norm;
  result.block.parallel = result.block.shared_norm = true;
  AttentionConfig& attention = result.block.attention;
  attention.qkv_bias = attention.out_bias = true;
  if (config.boolean_or("qk_layernorm", false)) {
    attention.qk_norm = AttentionConfig::QkNorm::head;
    attention.qk_norm_config = result.block.norm;
  }
  result.block.mlp.gated = false;
  result.block.mlp.bias = true;
  result.block.mlp.activation = activation_of(config, "hidden_act", "gelu_new");
  result.info.tied_embeddings = config.boolean_or("tie_word_embeddings", false);
  result.head_bias = true;
  result.ropes = {read_rope(config, result, 10000, rotary_dim_of(config, result, 0.5))};
  return result;
}

std::vector<WeightRow> phi_table(const DecoderConfig&) {
  return {
      {"embed", "model.embed_tokens", "token_embd"},
      {"blocks.{}.attn_norm", "model.layers.{}.input_layernorm", "blk.{}.attn_norm"},
      {"blocks.{}.attn.q", "model.layers.{}.self_attn.q_proj", "blk.{}.attn_q"},
      {"blocks.{}.attn.k", "model.layers.{}.self_attn.k_proj", "blk.{}.attn_k"},
      {"blocks.{}.attn.v", "model.layers.{}.self_attn.v_proj", "blk.{}.attn_v"},
      {"blocks.{}.attn.out", "model.layers.{}.self_attn.dense", "blk.{}.attn_output"},
      {"blocks.{}.attn.q_norm", "model.layers.{}.self_attn.q_layernorm", "blk.{}.attn_q_norm"},
      {"blocks.{}.attn.k_norm", "model.layers.{}.self_attn.k_layernorm", "blk.{}.attn_k_norm"},
      {"blocks.{}.mlp.up", "model.layers.{}.mlp.fc1", "blk.{}.ffn_up"},
      {"blocks.{}.mlp.down", "model.layers.{}.mlp.fc2", "blk.{}.ffn_down"},
      {"norm", "model.final_layernorm", "output_norm"},
      {"head", "lm_head", "output"},
  };
}

double partial_rotary_factor(const GgufKeys& keys) {
  const int64_t head_dim = keys.integer("embedding_length") / keys.integer("attention.head_count");
  return static_cast<double>(keys.integer_or("rope.dimension_count", head_dim)) /
         static_cast<double>(head_dim);
}

Json phi_from_gguf(const Metadata& metadata, const Checkpoint& checkpoint) {
  const GgufKeys keys(metadata, checkpoint);
  Json config = keys.sizes("phi", "PhiForCausalLM");
  config["hidden_act"] = "gelu_new";
  config["layer_norm_eps"] = keys.number("attention.layer_norm_epsilon");
  config["partial_rotary_factor"] = partial_rotary_factor(keys);
  config["qk_layernorm"] = keys.has_tensor("blk.0.attn_q_norm.weight");
  keys.add_rope(config);
  return config;
}

// ---- Phi-3 ----

DecoderConfig phi3_config(const JsonView& config) {
  DecoderConfig result = llama_line_config(config, "phi3", "Phi3ForCausalLM", {.default_positions = 4096});
  result.block.norm.eps = static_cast<float>(config.number_or("rms_norm_eps", 1e-5));
  result.final_norm = result.block.norm;
  result.block.attention.window = sliding_window(config, 0);
  return result;
}

std::vector<WeightRow> phi3_table(const DecoderConfig& config) {
  std::vector<WeightRow> rows = {
      {"embed", "model.embed_tokens", "token_embd"},
      {"blocks.{}.attn_norm", "model.layers.{}.input_layernorm", "blk.{}.attn_norm"},
      {"blocks.{}.attn.out", "model.layers.{}.self_attn.o_proj", "blk.{}.attn_output"},
      {"blocks.{}.mlp_norm", "model.layers.{}.post_attention_layernorm", "blk.{}.ffn_norm"},
      {"blocks.{}.mlp.gate",
       "model.layers.{}.mlp.gate_up_proj",
       "blk.{}.ffn_up",
       {.offset = 0},
       {.offset = 0}},
      {"blocks.{}.mlp.up",
       "model.layers.{}.mlp.gate_up_proj",
       "blk.{}.ffn_up",
       {.offset = config.info.hidden},
       {.offset = config.info.hidden}},
      {"blocks.{}.mlp.down", "model.layers.{}.mlp.down_proj", "blk.{}.ffn_down"},
      {"norm", "model.norm", "output_norm"},
      {"head", "lm_head", "output"},
  };
  const FusedRows fused = one_after_the_other(config);
  add_fused(rows, "model.layers.{}.self_attn.qkv_proj", fused, "blk.{}.attn_qkv", fused);
  return rows;
}

Json phi3_from_gguf(const Metadata& metadata, const Checkpoint& checkpoint) {
  const GgufKeys keys(metadata, checkpoint);
  Json config = llama_line_from_gguf(keys, "phi3", "Phi3ForCausalLM");
  config["partial_rotary_factor"] = partial_rotary_factor(keys);
  const int64_t window = keys.integer_or("attention.sliding_window", 0);
  config["sliding_window"] = window > 0 ? Json(window) : Json(nullptr);
  return config;
}

// ---- Phi-3.5-MoE ----

DecoderConfig phimoe_config(const JsonView& config) {
  DecoderConfig result =
      llama_line_config(config, "phimoe", "PhimoeForCausalLM", {.default_positions = 131072});
  result.block.norm = {.kind = NormConfig::Kind::layer,
                       .eps = static_cast<float>(config.number_or("rms_norm_eps", 1e-5)),
                       .bias = true};
  result.final_norm = result.block.norm;
  result.ropes = {read_rope(config, result, 1e6)};
  result.block.attention.qkv_bias = result.block.attention.out_bias =
      config.boolean_or("attention_bias", false);
  result.block.attention.window = sliding_window(config, 0);
  result.head_bias = config.boolean_or("lm_head_bias", false);
  MoeConfig& moe = result.block.experts.emplace();
  moe.router.experts = static_cast<int>(positive_or(config, "num_local_experts", 16));
  moe.router.top_k = static_cast<int>(positive_or(config, "num_experts_per_tok", 2));
  moe.router.score = RouterConfig::Score::sparse_mixer;
  moe.router.jitter = static_cast<float>(config.number_or("router_jitter_noise", 0.01));
  moe.expert = result.block.mlp;
  return result;
}

std::vector<WeightRow> phimoe_table(const DecoderConfig& config) {
  return with_mixtral_names(qwen_table(config));
}

Json phimoe_from_gguf(const Metadata& metadata, const Checkpoint& checkpoint) {
  const GgufKeys keys(metadata, checkpoint);
  Json config = llama_line_from_gguf(keys, "phimoe", "PhimoeForCausalLM");
  config["rms_norm_eps"] =
      keys.number(keys.has("attention.layer_norm_epsilon") ? "attention.layer_norm_epsilon"
                                                           : "attention.layer_norm_rms_epsilon");
  config["attention_bias"] = keys.has_tensor("blk.0.attn_q.bias");
  config["lm_head_bias"] = keys.has_tensor("output.bias");
  config["num_local_experts"] = keys.integer("expert_count");
  config["num_experts_per_tok"] = keys.integer("expert_used_count");
  config["sliding_window"] = nullptr;
  return config;
}

}  // namespace

std::span<const Architecture> phi_architectures() {
  static constexpr Architecture rows[] = {
      {"phi", "PhiForCausalLM", "phi2", make_decoder<phi_config, phi_table>,
       decoder_to_gguf<phi_config, "phi2">, phi_from_gguf},
      {"phi3",
       "Phi3ForCausalLM",
       "phi3",
       make_decoder<phi3_config, phi3_table>,
       decoder_to_gguf<phi3_config, "phi3">,
       phi3_from_gguf,
       {},
       decoder_gguf_tensors<phi3_config>},
      {"phimoe",
       "PhimoeForCausalLM",
       "phimoe",
       make_decoder<phimoe_config, phimoe_table>,
       decoder_to_gguf<phimoe_config, "phimoe">,
       phimoe_from_gguf,
       {},
       decoder_gguf_tensors<phimoe_config>},
  };
  return rows;
}

}  // namespace qkv
