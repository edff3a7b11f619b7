// The members of the Llama line with experts: Mixtral (Jiang et al., arXiv 2401.04088), Qwen 2 and 3 MoE
// (arXiv 2407.10671, 2505.09388) and OLMoE (Muennighoff et al., arXiv 2409.02060).
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/models/families.h"
#include "qkv/models/llama_line.h"

namespace qkv {
namespace {

// Every layer's network becomes `experts` networks of `hidden` channels.
MoeConfig& set_experts(DecoderConfig& result, int64_t experts, int64_t top_k, int64_t hidden) {
  MoeConfig& moe = result.block.experts.emplace();
  moe.router.experts = static_cast<int>(experts);
  moe.router.top_k = static_cast<int>(top_k);
  moe.expert = result.block.mlp;
  moe.expert.hidden = hidden;
  return moe;
}

// Layers that keep a plain network: those listed, and all but every "decoder_sparse_step"-th.
void set_dense_layers(const JsonView& config, DecoderConfig& result) {
  const int64_t step = positive_or(config, "decoder_sparse_step", 1);
  if (result.layers.empty())
    result.layers.assign(static_cast<size_t>(result.info.layers), {result.block.attention.window});
  for (int64_t i = 0; i < result.info.layers; ++i)
    result.layers[static_cast<size_t>(i)].dense = (i + 1) % step != 0;
  const Json* listed = config.find("mlp_only_layers");
  if (listed == nullptr) return;
  require(listed->is_array(), "{}: key 'mlp_only_layers': expected a list of layers", config.where());
  for (const Json& layer : *listed) {
    require(layer.is_number_integer(), "{}: key 'mlp_only_layers': expected integers, found {}",
            config.where(), dump_json(layer));
    const auto i = layer.get<int64_t>();
    if (0 <= i && i < result.info.layers) result.layers[static_cast<size_t>(i)].dense = true;
  }
}

// ---- Mixtral ----

DecoderConfig mixtral_config(const JsonView& config) {
  DecoderConfig result =
      llama_line_config(config, "mixtral", "MixtralForCausalLM", {.default_positions = 131072});
  result.block.norm.eps = static_cast<float>(config.number_or("rms_norm_eps", 1e-5));
  result.final_norm = result.block.norm;
  result.ropes = {read_rope(config, result, 1e6)};
  result.block.attention.window = sliding_window(config, 0);
  MoeConfig& moe = set_experts(result, positive_or(config, "num_local_experts", 8),
                               positive_or(config, "num_experts_per_tok", 2), result.info.hidden);
  moe.router.normalize = true;
  return result;
}

std::vector<WeightRow> mixtral_table(const DecoderConfig& config) {
  return with_mixtral_names(llama_table(config));
}

Json mixtral_from_gguf(const Metadata& metadata, const Checkpoint& checkpoint) {
  const GgufKeys keys(metadata, checkpoint);
  if (keys.integer_or("expert_count", 0) == 0) return nullptr;
  Json config = llama_line_from_gguf(keys, "mixtral", "MixtralForCausalLM");
  config["num_local_experts"] = keys.integer("expert_count");
  config["num_experts_per_tok"] = keys.integer("expert_used_count");
  config["sliding_window"] = nullptr;
  if (keys.has("attention.sliding_window"))
    config["sliding_window"] = keys.integer("attention.sliding_window");
  return config;
}

// ---- Qwen ----

DecoderConfig qwen2_moe_config(const JsonView& config) {
  DecoderConfig result =
      llama_line_config(config, "qwen2_moe", "Qwen2MoeForCausalLM", {.default_positions = 32768});
  result.block.attention.qkv_bias = config.boolean_or("qkv_bias", true);
  set_qwen_windows(config, result);
  MoeConfig& moe = set_experts(result, positive_or(config, "num_experts", 60),
                               positive_or(config, "num_experts_per_tok", 4),
                               positive_or(config, "moe_intermediate_size", 1408));
  moe.router.normalize = config.boolean_or("norm_topk_prob", false);
  moe.shared_hidden = positive_or(config, "shared_expert_intermediate_size", 5632);
  moe.shared_gate = true;
  set_dense_layers(config, result);
  return result;
}

DecoderConfig qwen3_moe_config(const JsonView& config) {
  DecoderConfig result =
      llama_line_config(config, "qwen3_moe", "Qwen3MoeForCausalLM", {.default_positions = 32768});
  result.block.attention.qkv_bias = result.block.attention.out_bias =
      config.boolean_or("attention_bias", false);
  result.block.attention.qk_norm = AttentionConfig::QkNorm::head;
  result.block.attention.qk_norm_config = result.block.norm;
  set_qwen_windows(config, result);
  MoeConfig& moe = set_experts(result, positive_or(config, "num_experts", 128),
                               positive_or(config, "num_experts_per_tok", 8),
                               positive_or(config, "moe_intermediate_size", 768));
  moe.router.normalize = config.boolean_or("norm_topk_prob", false);
  set_dense_layers(config, result);
  return result;
}

void add_experts(const GgufKeys& keys, Json& config, bool normalized) {
  config["num_experts"] = keys.integer("expert_count");
  config["num_experts_per_tok"] = keys.integer("expert_used_count");
  config["moe_intermediate_size"] = keys.shape_of("blk.0.ffn_gate_exps.weight")[1];
  config["norm_topk_prob"] = keys.boolean_or("expert_weights_norm", normalized);
}

Json qwen2_moe_from_gguf(const Metadata& metadata, const Checkpoint& checkpoint) {
  const GgufKeys keys(metadata, checkpoint);
  Json config = llama_line_from_gguf(keys, "qwen2_moe", "Qwen2MoeForCausalLM");
  add_experts(keys, config, false);
  config["shared_expert_intermediate_size"] = keys.shape_of("blk.0.ffn_gate_shexp.weight")[0];
  return config;
}

Json qwen3_moe_from_gguf(const Metadata& metadata, const Checkpoint& checkpoint) {
  const GgufKeys keys(metadata, checkpoint);
  Json config = llama_line_from_gguf(keys, "qwen3_moe", "Qwen3MoeForCausalLM");
  config["head_dim"] = keys.shape_of("blk.0.attn_q_norm.weight")[0];
  add_experts(keys, config, true);
  return config;
}

// ---- OLMoE ----

DecoderConfig olmoe_config(const JsonView& config) {
  DecoderConfig result = llama_line_config(config, "olmoe", "OlmoeForCausalLM", {.default_positions = 4096});
  result.block.norm.eps = static_cast<float>(config.number_or("rms_norm_eps", 1e-5));
  result.final_norm = result.block.norm;
  result.block.attention.qkv_bias = result.block.attention.out_bias =
      config.boolean_or("attention_bias", false);
  result.block.attention.qk_norm = AttentionConfig::QkNorm::whole;
  result.block.attention.qk_norm_config = result.block.norm;
  require(!config.has("clip_qkv"),
          "{}: key 'clip_qkv': expected null; clipping between norm and rotation is not implemented",
          config.where());
  MoeConfig& moe = set_experts(result, positive_or(config, "num_experts", 64),
                               positive_or(config, "num_experts_per_tok", 8), result.info.hidden);
  moe.router.normalize = config.boolean_or("norm_topk_prob", false);
  return result;
}

Json olmoe_from_gguf(const Metadata& metadata, const Checkpoint& checkpoint) {
  const GgufKeys keys(metadata, checkpoint);
  Json config = llama_line_from_gguf(keys, "olmoe", "OlmoeForCausalLM");
  add_experts(keys, config, false);
  config["intermediate_size"] = config["moe_intermediate_size"];
  config.erase("moe_intermediate_size");
  return config;
}

}  // namespace

std::span<const Architecture> llama_expert_architectures() {
  static constexpr Architecture rows[] = {
      {"mixtral", "MixtralForCausalLM", "llama", make_decoder<mixtral_config, mixtral_table>,
       decoder_to_gguf<mixtral_config, "llama">, mixtral_from_gguf},
      {"qwen2_moe",
       "Qwen2MoeForCausalLM",
       "qwen2moe",
       make_decoder<qwen2_moe_config, qwen_table>,
       decoder_to_gguf<qwen2_moe_config, "qwen2moe">,
       qwen2_moe_from_gguf,
       {},
       decoder_gguf_tensors<qwen2_moe_config>},
      {"qwen3_moe",
       "Qwen3MoeForCausalLM",
       "qwen3moe",
       make_decoder<qwen3_moe_config, qwen_table>,
       decoder_to_gguf<qwen3_moe_config, "qwen3moe">,
       qwen3_moe_from_gguf,
       {},
       decoder_gguf_tensors<qwen3_moe_config>},
      {"olmoe", "OlmoeForCausalLM", "olmoe", make_decoder<olmoe_config, qwen_table>,
       decoder_to_gguf<olmoe_config, "olmoe">, olmoe_from_gguf},
  };
  return rows;
}

}  // namespace qkv
