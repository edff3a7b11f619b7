#include "qkv/models/llama_line.h"

#include <nlohmann/json.hpp>

namespace qkv {

DecoderConfig llama_line_config(const JsonView& config, const char* model_type, const char* hf_class,
                                const SizeKeys& keys) {
  DecoderConfig result = read_sizes(config, model_type, hf_class, keys);
  result.block.mlp.activation = activation_of(config, "hidden_act", "silu");
  result.info.tied_embeddings = config.boolean_or("tie_word_embeddings", false);
  result.block.norm.eps = static_cast<float>(config.number_or("rms_norm_eps", 1e-6));
  result.final_norm = result.block.norm;
  result.ropes = {read_rope(config, result, 10000, rotary_dim_of(config, result))};
  return result;
}

int64_t sliding_window(const JsonView& config, int64_t absent) {
  return static_cast<int64_t>(number_or_null(config, "sliding_window", static_cast<double>(absent)));
}

void set_qwen_windows(const JsonView& config, DecoderConfig& result) {
  const int64_t window = config.boolean_or("use_sliding_window", false) ? sliding_window(config, 4096) : 0;
  if (window == 0) return;
  const int64_t first = config.integer_or("max_window_layers", 28);
  result.layers =
      read_windows(config, result.info.layers, window, [=](int64_t layer) { return layer >= first; });
}

std::vector<WeightRow> llama_line_table(const DecoderConfig& config, bool turned) {
  const Placement whole, q_and_k = {.rope_head = turned ? config.info.head_dim : 0},
                         stacked = {.stacked = true};
  const Placement vector = {.shape = {config.info.channels}};
  return {
      {"embed", "model.embed_tokens", "token_embd"},
      {"blocks.{}.attn_norm", "model.layers.{}.input_layernorm", "blk.{}.attn_norm"},
      {"blocks.{}.attn.q", "model.layers.{}.self_attn.q_proj", "blk.{}.attn_q", whole, q_and_k},
      {"blocks.{}.attn.k", "model.layers.{}.self_attn.k_proj", "blk.{}.attn_k", whole, q_and_k},
      {"blocks.{}.attn.v", "model.layers.{}.self_attn.v_proj", "blk.{}.attn_v"},
      {"blocks.{}.attn.out", "model.layers.{}.self_attn.o_proj", "blk.{}.attn_output"},
      {"blocks.{}.attn.q_norm", "model.layers.{}.self_attn.q_norm", "blk.{}.attn_q_norm"},
      {"blocks.{}.attn.k_norm", "model.layers.{}.self_attn.k_norm", "blk.{}.attn_k_norm"},
      {"blocks.{}.mlp_norm", "model.layers.{}.post_attention_layernorm", "blk.{}.ffn_norm"},
      {"blocks.{}.mlp.gate", "model.layers.{}.mlp.gate_proj", "blk.{}.ffn_gate"},
      {"blocks.{}.mlp.up", "model.layers.{}.mlp.up_proj", "blk.{}.ffn_up"},
      {"blocks.{}.mlp.down", "model.layers.{}.mlp.down_proj", "blk.{}.ffn_down"},
      {"blocks.{}.mlp.router", "model.layers.{}.mlp.gate", "blk.{}.ffn_gate_inp"},
      {"blocks.{}.mlp.experts.{}.gate", "model.layers.{}.mlp.experts.{}.gate_proj", "blk.{}.ffn_gate_exps",
       whole, stacked},
      {"blocks.{}.mlp.experts.{}.up", "model.layers.{}.mlp.experts.{}.up_proj", "blk.{}.ffn_up_exps", whole,
       stacked},
      {"blocks.{}.mlp.experts.{}.down", "model.layers.{}.mlp.experts.{}.down_proj", "blk.{}.ffn_down_exps",
       whole, stacked},
      {"blocks.{}.mlp.shared.gate", "model.layers.{}.mlp.shared_expert.gate_proj", "blk.{}.ffn_gate_shexp"},
      {"blocks.{}.mlp.shared.up", "model.layers.{}.mlp.shared_expert.up_proj", "blk.{}.ffn_up_shexp"},
      {"blocks.{}.mlp.shared.down", "model.layers.{}.mlp.shared_expert.down_proj", "blk.{}.ffn_down_shexp"},
      {"blocks.{}.mlp.shared_gate", "model.layers.{}.mlp.shared_expert_gate", "blk.{}.ffn_gate_inp_shexp",
       whole, vector},
      {"norm", "model.norm", "output_norm"},
      {"head", "lm_head", "output"},
  };
}

std::vector<WeightRow> llama_table(const DecoderConfig& config) {
  return llama_line_table(config, true);
}
std::vector<WeightRow> qwen_table(const DecoderConfig& config) {
  return llama_line_table(config, false);
}

std::vector<WeightRow> with_mixtral_names(std::vector<WeightRow> rows) {
  for (WeightRow& row : rows) {
    if (row.name == "blocks.{}.mlp.router") row.hf = "model.layers.{}.block_sparse_moe.gate";
    if (row.name == "blocks.{}.mlp.experts.{}.gate")
      row.hf = "model.layers.{}.block_sparse_moe.experts.{}.w1";
    if (row.name == "blocks.{}.mlp.experts.{}.down")
      row.hf = "model.layers.{}.block_sparse_moe.experts.{}.w2";
    if (row.name == "blocks.{}.mlp.experts.{}.up") row.hf = "model.layers.{}.block_sparse_moe.experts.{}.w3";
  }
  return rows;
}

Json llama_line_from_gguf(const GgufKeys& keys, const char* model_type, const char* hf_class) {
  Json config = keys.sizes(model_type, hf_class);
  if (keys.has("attention.layer_norm_rms_epsilon"))
    config["rms_norm_eps"] = keys.number("attention.layer_norm_rms_epsilon");
  config["hidden_act"] = "silu";
  keys.add_rope(config);
  return config;
}

}  // namespace qkv
