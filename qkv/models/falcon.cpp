// Falcon (Almazrouei et al., arXiv 2311.16867): 7B (one key for all heads, one norm for attention and network
// side by side), 40B and later (a key per group of heads, two norms) and the RefinedWeb models (sequential,
// ALiBi, biases).
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/models/decoder_rows.h"
#include "qkv/models/families.h"
#include "qkv/models/fused_rows.h"

namespace qkv {
namespace {

// Hugging Face rounds the slopes to bfloat16 and adds the bias before scaling the scores. From 4.45 on its
// eager attention adds it once more with the mask: configurations that such a version wrote are taken to mean
// that.
std::vector<float> falcon_slopes(const JsonView& config, int heads, int64_t head_dim) {
  int major = 0, minor = 0;
  std::sscanf(config.string_or("transformers_version", "").c_str(), "%d.%d", &major, &minor);
  const float times = major > 4 || (major == 4 && minor >= 45) ? 2.0f : 1.0f;
  std::vector<float> slopes = alibi_slopes(heads);
  for (float& slope : slopes)
    slope = times * to_float(from_float<bf16>(slope)) / std::sqrt(static_cast<float>(head_dim));
  return slopes;
}

DecoderConfig falcon_config(const JsonView& config) {
  // "num_kv_heads" counts only in the newer layout.
  DecoderConfig result = read_sizes(config, "falcon", "FalconForCausalLM",
                                    {.kv_heads = "", .head_dim = "", .hidden = "ffn_hidden_size"});
  ModelInfo& info = result.info;
  const bool newer = config.boolean_or("new_decoder_architecture", false);
  info.kv_heads = newer                                    ? positive_or(config, "num_kv_heads", info.heads)
                  : config.boolean_or("multi_query", true) ? 1
                                                           : info.heads;
  require(info.heads % info.kv_heads == 0, "{}: num_attention_heads {} is not a multiple of num_kv_heads {}",
          config.where(), info.heads, info.kv_heads);
  info.tied_embeddings = config.boolean_or("tie_word_embeddings", true);
  AttentionConfig& attention = result.block.attention;
  attention.n_kv_heads = static_cast<int>(info.kv_heads);
  const bool bias = config.boolean_or("bias", false);
  attention.qkv_bias = attention.out_bias = bias;
  result.block.mlp.gated = false;
  result.block.mlp.bias = bias;
  result.block.mlp.activation = activation_of(config, "activation", "gelu");
  result.block.norm = {.kind = NormConfig::Kind::layer,
                       .eps = static_cast<float>(config.number_or("layer_norm_epsilon", 1e-5)),
                       .bias = true};
  result.final_norm = result.block.norm;
  result.block.parallel = newer || config.boolean_or("parallel_attn", true);
  result.block.shared_norm = !newer || config.integer_or("num_ln_in_parallel_attn", 2) == 1;
  if (config.boolean_or("alibi", false)) {
    attention.alibi_slopes = falcon_slopes(config, attention.n_heads, info.head_dim);
    result.alibi_max_bias = 8;
  } else {
    result.ropes = {read_rope(config, result)};
  }
  return result;
}

std::vector<WeightRow> falcon_table(const DecoderConfig& config) {
  const bool two_norms = config.block.parallel && !config.block.shared_norm;
  std::vector<WeightRow> rows = {
      {"embed", "transformer.word_embeddings", "token_embd"},
      {"blocks.{}.attn.out", "transformer.h.{}.self_attention.dense", "blk.{}.attn_output"},
      {"blocks.{}.mlp.up", "transformer.h.{}.mlp.dense_h_to_4h", "blk.{}.ffn_up"},
      {"blocks.{}.mlp.down", "transformer.h.{}.mlp.dense_4h_to_h", "blk.{}.ffn_down"},
      {"norm", "transformer.ln_f", "output_norm"},
      {"head", "lm_head", "output"},
  };
  if (two_norms) {  // GGUF's attn_norm is the network's
    rows.push_back({"blocks.{}.attn_norm", "transformer.h.{}.ln_attn", "blk.{}.attn_norm_2"});
    rows.push_back({"blocks.{}.mlp_norm", "transformer.h.{}.ln_mlp", "blk.{}.attn_norm"});
  } else {
    rows.push_back({"blocks.{}.attn_norm", "transformer.h.{}.input_layernorm", "blk.{}.attn_norm"});
    rows.push_back({"blocks.{}.mlp_norm", "transformer.h.{}.post_attention_layernorm", "blk.{}.ffn_norm"});
  }
  // With one key for all heads, by key/value head is one after the other.
  add_fused(rows, "transformer.h.{}.self_attention.query_key_value", by_kv_head(config), "blk.{}.attn_qkv",
            one_after_the_other(config));
  return rows;
}

void falcon_to_gguf(const JsonView& json, Metadata& metadata) {
  const DecoderConfig config = falcon_config(json);
  require(config.block.parallel && config.alibi_max_bias == 0 && !config.block.mlp.bias,
          "{}: GGUF has no place for Falcon with ALiBi, biases or attention and network one after the other",
          json.where());
  write_gguf_keys(config, "falcon", metadata);
  metadata.set("falcon.tensor_data_layout", std::string("jploski"));
}

Json falcon_from_gguf(const Metadata& metadata, const Checkpoint& checkpoint) {
  const GgufKeys keys(metadata, checkpoint);
  Json config =
      keys.sizes("falcon", "FalconForCausalLM", {.kv_heads = "num_kv_heads", .hidden = "ffn_hidden_size"});
  const int64_t kv_heads = keys.integer_or("attention.head_count_kv", 1);
  const bool two_norms = keys.has_tensor("blk.0.attn_norm_2.weight");
  config["num_kv_heads"] = kv_heads;
  config["multi_query"] = true;
  config["new_decoder_architecture"] = two_norms || kv_heads > 1;
  if (!two_norms && kv_heads > 1) config["num_ln_in_parallel_attn"] = 1;
  config["parallel_attn"] = true;
  config["bias"] = false;
  config["alibi"] = false;
  config["layer_norm_epsilon"] = keys.number("attention.layer_norm_epsilon");
  keys.add_rope(config);
  return config;
}

}  // namespace

std::span<const Architecture> falcon_architectures() {
  static constexpr Architecture rows[] = {
      {"falcon", "FalconForCausalLM", "falcon", make_decoder<falcon_config, falcon_table>, falcon_to_gguf,
       falcon_from_gguf},
  };
  return rows;
}

}  // namespace qkv
