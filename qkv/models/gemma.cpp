// Gemma 1, 2 and 3 (arXiv 2403.08295, 2408.00118, 2503.19786): GeGLU, norm gains stored minus one, embeddings
// times sqrt(channels); from 2 on norms around each part and windows in some layers; 2 caps scores and
// logits, 3 norms queries and keys and turns local and global layers by different frequencies.
#include <cmath>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/models/decoder_rows.h"
#include "qkv/models/families.h"

namespace qkv {
namespace {

DecoderConfig base(const JsonView& config, const char* model_type, const char* hf_class, int64_t positions) {
  DecoderConfig result =
      read_sizes(config, model_type, hf_class, {.default_positions = positions, .default_head_dim = 256});
  result.block.norm.eps = static_cast<float>(config.number_or("rms_norm_eps", 1e-6));
  result.block.norm.gain_offset = 1;
  result.final_norm = result.block.norm;
  result.block.mlp.activation = activation_of(config, "hidden_activation", "gelu_pytorch_tanh");
  result.block.attention.qkv_bias = result.block.attention.out_bias =
      config.boolean_or("attention_bias", false);
  result.info.tied_embeddings = config.boolean_or("tie_word_embeddings", true);
  result.embedding_scale = std::sqrt(static_cast<float>(result.info.channels));
  return result;
}

// Scores are scaled by a size that need not be the head's.
void set_scale(const JsonView& config, DecoderConfig& result) {
  const double size = config.number_or("query_pre_attn_scalar", 256);
  require(size > 0, "{}: key 'query_pre_attn_scalar': expected more than 0, found {}", config.where(), size);
  result.block.attention.scale = static_cast<float>(1 / std::sqrt(size));
}

DecoderConfig gemma_config(const JsonView& config) {
  DecoderConfig result = base(config, "gemma", "GemmaForCausalLM", 8192);
  result.ropes = {read_rope(config, result)};
  return result;
}

DecoderConfig gemma2_config(const JsonView& config) {
  DecoderConfig result = base(config, "gemma2", "Gemma2ForCausalLM", 8192);
  result.ropes = {read_rope(config, result)};
  result.block.norms = BlockConfig::Norms::around;
  set_scale(config, result);
  result.block.attention.softcap = static_cast<float>(number_or_null(config, "attn_logit_softcapping", 50));
  result.logit_softcap = static_cast<float>(number_or_null(config, "final_logit_softcapping", 30));
  result.layers = read_windows(config, result.info.layers, positive_or(config, "sliding_window", 4096),
                               [](int64_t layer) { return layer % 2 == 0; });
  return result;
}

DecoderConfig gemma3_config(const JsonView& config) {
  DecoderConfig result = base(config, "gemma3_text", "Gemma3ForCausalLM", 131072);
  result.block.norms = BlockConfig::Norms::around;
  set_scale(config, result);
  AttentionConfig& attention = result.block.attention;
  attention.softcap = static_cast<float>(config.number_or("attn_logit_softcapping", 0));
  result.logit_softcap = static_cast<float>(config.number_or("final_logit_softcapping", 0));
  attention.qk_norm = AttentionConfig::QkNorm::head;
  attention.qk_norm_config = result.block.norm;
  // Global layers turn as rope_theta and rope_scaling say, local ones by a plain base of their own.
  RopeConfig local;
  local.theta = config.number_or("rope_local_base_freq", 10000);
  local.head_dim = local.rotary_dim = result.info.head_dim;
  result.ropes = {read_rope(config, result, 1e6), local};
  const int64_t pattern = positive_or(config, "sliding_window_pattern", 6);
  result.layers = read_windows(config, result.info.layers, positive_or(config, "sliding_window", 4096),
                               [=](int64_t layer) { return (layer + 1) % pattern != 0; });
  for (LayerVariant& layer : result.layers) layer.rope = layer.window > 0 ? 1 : 0;
  return result;
}

std::vector<WeightRow> gemma_table(const DecoderConfig& config) {
  const bool around = config.block.norms == BlockConfig::Norms::around;
  const Placement same, plus_one = {.values = StoredValues::plus_one};
  return {
      {"embed", "model.embed_tokens", "token_embd"},
      {"blocks.{}.attn_norm", "model.layers.{}.input_layernorm", "blk.{}.attn_norm", same, plus_one},
      {"blocks.{}.attn.q", "model.layers.{}.self_attn.q_proj", "blk.{}.attn_q"},
      {"blocks.{}.attn.k", "model.layers.{}.self_attn.k_proj", "blk.{}.attn_k"},
      {"blocks.{}.attn.v", "model.layers.{}.self_attn.v_proj", "blk.{}.attn_v"},
      {"blocks.{}.attn.out", "model.layers.{}.self_attn.o_proj", "blk.{}.attn_output"},
      {"blocks.{}.attn.q_norm", "model.layers.{}.self_attn.q_norm", "blk.{}.attn_q_norm", same, plus_one},
      {"blocks.{}.attn.k_norm", "model.layers.{}.self_attn.k_norm", "blk.{}.attn_k_norm", same, plus_one},
      {"blocks.{}.attn_post_norm", "model.layers.{}.post_attention_layernorm", "blk.{}.post_attention_norm",
       same, plus_one},
      {"blocks.{}.mlp_norm",
       around ? "model.layers.{}.pre_feedforward_layernorm" : "model.layers.{}.post_attention_layernorm",
       "blk.{}.ffn_norm", same, plus_one},
      {"blocks.{}.mlp.gate", "model.layers.{}.mlp.gate_proj", "blk.{}.ffn_gate"},
      {"blocks.{}.mlp.up", "model.layers.{}.mlp.up_proj", "blk.{}.ffn_up"},
      {"blocks.{}.mlp.down", "model.layers.{}.mlp.down_proj", "blk.{}.ffn_down"},
      {"blocks.{}.mlp_post_norm", "model.layers.{}.post_feedforward_layernorm", "blk.{}.post_ffw_norm", same,
       plus_one},
      {"norm", "model.norm", "output_norm", same, plus_one},
      {"head", "lm_head", "output"},
  };
}

int64_t head_dim_of(const GgufKeys& keys) {
  return keys.integer_or("attention.key_length",
                         keys.integer("embedding_length") / keys.integer("attention.head_count"));
}

Json base_from_gguf(const GgufKeys& keys, const char* model_type, const char* hf_class, double theta) {
  Json config = keys.sizes(model_type, hf_class);
  config["head_dim"] = head_dim_of(keys);
  config["hidden_activation"] = "gelu_pytorch_tanh";
  config["rms_norm_eps"] = keys.number("attention.layer_norm_rms_epsilon");
  keys.add_rope(config, theta);
  return config;
}

// The largest model of a generation scales scores by channels / heads, the others by the head's size.
void add_scale(const GgufKeys& keys, Json& config, int64_t layers_of_largest) {
  const int64_t heads = keys.integer("attention.head_count");
  auto size = static_cast<double>(head_dim_of(keys));
  if (keys.integer("block_count") == layers_of_largest)
    size = static_cast<double>(keys.integer("embedding_length") / heads);
  if (keys.has("attention.scale"))
    size = std::round(1e3 / (keys.number("attention.scale") * keys.number("attention.scale"))) / 1e3;
  config["query_pre_attn_scalar"] = size;
}

Json gemma_from_gguf(const Metadata& metadata, const Checkpoint& checkpoint) {
  return base_from_gguf(GgufKeys(metadata, checkpoint), "gemma", "GemmaForCausalLM", 10000);
}

Json gemma2_from_gguf(const Metadata& metadata, const Checkpoint& checkpoint) {
  const GgufKeys keys(metadata, checkpoint);
  Json config = base_from_gguf(keys, "gemma2", "Gemma2ForCausalLM", 10000);
  config["attn_logit_softcapping"] = keys.number_or("attn_logit_softcapping", 50);
  config["final_logit_softcapping"] = keys.number_or("final_logit_softcapping", 30);
  config["sliding_window"] = keys.integer_or("attention.sliding_window", 4096);
  add_scale(keys, config, 46);
  return config;
}

Json gemma3_from_gguf(const Metadata& metadata, const Checkpoint& checkpoint) {
  const GgufKeys keys(metadata, checkpoint);
  Json config = base_from_gguf(keys, "gemma3_text", "Gemma3ForCausalLM", 1e6);
  if (keys.has("final_logit_softcapping"))
    config["final_logit_softcapping"] = keys.number("final_logit_softcapping");
  config["sliding_window"] = keys.integer_or("attention.sliding_window", 1024);
  config["sliding_window_pattern"] = 6;
  config["rope_local_base_freq"] = keys.number_or("rope.freq_base_swa", 10000);
  add_scale(keys, config, 62);
  return config;
}

}  // namespace

std::span<const Architecture> gemma_architectures() {
  static constexpr Architecture rows[] = {
      {"gemma", "GemmaForCausalLM", "gemma", make_decoder<gemma_config, gemma_table>,
       decoder_to_gguf<gemma_config, "gemma">, gemma_from_gguf},
      {"gemma2", "Gemma2ForCausalLM", "gemma2", make_decoder<gemma2_config, gemma_table>,
       decoder_to_gguf<gemma2_config, "gemma2">, gemma2_from_gguf},
      {"gemma3_text", "Gemma3ForCausalLM", "gemma3", make_decoder<gemma3_config, gemma_table>,
       decoder_to_gguf<gemma3_config, "gemma3">, gemma3_from_gguf},
  };
  return rows;
}

}  // namespace qkv
