// GPT-NeoX (Black et al., arXiv 2204.06745) and Pythia (Biderman et al., arXiv 2304.01373): attention and
// network side by side, each behind a LayerNorm of its own; a quarter of every head turns with its position;
// queries, keys and values are fused head by head.
#include <nlohmann/json.hpp>

#include "qkv/models/decoder_rows.h"
#include "qkv/models/families.h"
#include "qkv/models/fused_rows.h"

namespace qkv {
namespace {

DecoderConfig neox_config(const JsonView& config) {
  DecoderConfig result = read_sizes(config, "gpt_neox", "GPTNeoXForCausalLM");
  result.block.norm = {.kind = NormConfig::Kind::layer,
                       .eps = static_cast<float>(config.number_or("layer_norm_eps", 1e-5)),
                       .bias = true};
  result.final_norm = result.block.norm;
  result.block.parallel = config.boolean_or("use_parallel_residual", true);
  result.says_parallel = true;
  AttentionConfig& attention = result.block.attention;
  attention.qkv_bias = attention.out_bias = config.boolean_or("attention_bias", true);
  result.block.mlp.gated = false;
  result.block.mlp.bias = true;
  result.block.mlp.activation = activation_of(config, "hidden_act", "gelu");
  result.info.tied_embeddings = config.boolean_or("tie_word_embeddings", false);
  const double factor = config.number_or("rotary_pct", 0.25);
  result.ropes = {read_rope(config, result, config.number_or("rotary_emb_base", 10000),
                            rotary_dim_of(config, result, factor))};
  return result;
}

std::vector<WeightRow> neox_table(const DecoderConfig& config) {
  std::vector<WeightRow> rows = {
      {"embed", "gpt_neox.embed_in", "token_embd"},
      {"blocks.{}.attn_norm", "gpt_neox.layers.{}.input_layernorm", "blk.{}.attn_norm"},
      {"blocks.{}.attn.out", "gpt_neox.layers.{}.attention.dense", "blk.{}.attn_output"},
      {"blocks.{}.mlp_norm", "gpt_neox.layers.{}.post_attention_layernorm", "blk.{}.ffn_norm"},
      {"blocks.{}.mlp.up", "gpt_neox.layers.{}.mlp.dense_h_to_4h", "blk.{}.ffn_up"},
      {"blocks.{}.mlp.down", "gpt_neox.layers.{}.mlp.dense_4h_to_h", "blk.{}.ffn_down"},
      {"norm", "gpt_neox.final_layer_norm", "output_norm"},
      {"head", "embed_out", "output"},
  };
  add_fused(rows, "gpt_neox.layers.{}.attention.query_key_value", by_kv_head(config), "blk.{}.attn_qkv",
            one_after_the_other(config));
  return rows;
}

Json neox_from_gguf(const Metadata& metadata, const Checkpoint& checkpoint) {
  const GgufKeys keys(metadata, checkpoint);
  Json config = keys.sizes("gpt_neox", "GPTNeoXForCausalLM");
  const double head_dim =
      static_cast<double>(keys.integer("embedding_length") / keys.integer("attention.head_count"));
  config.erase("num_key_value_heads");
  config["hidden_act"] = "gelu";
  config["layer_norm_eps"] = keys.number("attention.layer_norm_epsilon");
  config["rotary_pct"] = static_cast<double>(keys.integer("rope.dimension_count")) / head_dim;
  config["use_parallel_residual"] = keys.boolean_or("use_parallel_residual", true);
  config["attention_bias"] = keys.has_tensor("blk.0.attn_qkv.bias");
  keys.add_rope(config);
  config["rotary_emb_base"] = config["rope_theta"];
  return config;
}

constexpr std::string_view kMasks[] = {".attention.bias", ".attention.masked_bias"};

}  // namespace

std::span<const Architecture> gpt_neox_architectures() {
  static constexpr Architecture rows[] = {
      {"gpt_neox", "GPTNeoXForCausalLM", "gptneox", make_decoder<neox_config, neox_table>,
       decoder_to_gguf<neox_config, "gptneox">, neox_from_gguf, kMasks},
  };
  return rows;
}

}  // namespace qkv
