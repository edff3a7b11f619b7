// BLOOM (Le Scao et al., arXiv 2211.05100): ALiBi, a LayerNorm right after the embedding, queries, keys and
// values fused head by head.
#include <nlohmann/json.hpp>

#include "qkv/models/decoder_rows.h"
#include "qkv/models/families.h"
#include "qkv/models/fused_rows.h"

namespace qkv {
namespace {

DecoderConfig bloom_config(const JsonView& config) {
  // Both spellings are about: n_layer or num_hidden_layers, and so on.
  SizeKeys names = {.channels = config.has("n_embed") ? "n_embed" : "hidden_size",
                    .layers = config.has("n_layer") ? "n_layer" : "num_hidden_layers",
                    .heads = config.has("n_head") ? "n_head" : "num_attention_heads",
                    .hidden = "n_inner",
                    .positions = "seq_length"};
  only(config, "apply_residual_connection_post_layernorm", false);
  DecoderConfig result = read_sizes(config, "bloom", "BloomForCausalLM", names);
  result.block.norm = {.kind = NormConfig::Kind::layer,
                       .eps = static_cast<float>(config.number_or("layer_norm_epsilon", 1e-5)),
                       .bias = true};
  result.embedding_norm = result.final_norm = result.block.norm;
  result.info.tied_embeddings = config.boolean_or("tie_word_embeddings", true);
  AttentionConfig& attention = result.block.attention;
  attention.qkv_bias = attention.out_bias = true;
  attention.alibi_slopes = alibi_slopes(attention.n_heads);
  result.alibi_max_bias = 8;
  result.block.mlp.gated = false;
  result.block.mlp.bias = true;
  result.block.mlp.activation = Activation::gelu_tanh;
  return result;
}

std::vector<WeightRow> bloom_table(const DecoderConfig& config) {
  std::vector<WeightRow> rows = {
      {"embed", "transformer.word_embeddings", "token_embd"},
      {"embed_norm", "transformer.word_embeddings_layernorm", "token_embd_norm"},
      {"blocks.{}.attn_norm", "transformer.h.{}.input_layernorm", "blk.{}.attn_norm"},
      {"blocks.{}.attn.out", "transformer.h.{}.self_attention.dense", "blk.{}.attn_output"},
      {"blocks.{}.mlp_norm", "transformer.h.{}.post_attention_layernorm", "blk.{}.ffn_norm"},
      {"blocks.{}.mlp.up", "transformer.h.{}.mlp.dense_h_to_4h", "blk.{}.ffn_up"},
      {"blocks.{}.mlp.down", "transformer.h.{}.mlp.dense_4h_to_h", "blk.{}.ffn_down"},
      {"norm", "transformer.ln_f", "output_norm"},
      {"head", "lm_head", "output"},
  };
  add_fused(rows, "transformer.h.{}.self_attention.query_key_value", by_kv_head(config), "blk.{}.attn_qkv",
            one_after_the_other(config));
  return rows;
}

Json bloom_from_gguf(const Metadata& metadata, const Checkpoint& checkpoint) {
  const GgufKeys keys(metadata, checkpoint);
  Json config =
      keys.sizes("bloom", "BloomForCausalLM",
                 {.layers = "n_layer", .heads = "n_head", .hidden = "n_inner", .positions = "seq_length"});
  config.erase("num_key_value_heads");
  config["layer_norm_epsilon"] = keys.number("attention.layer_norm_epsilon");
  return config;
}

}  // namespace

std::span<const Architecture> bloom_architectures() {
  static constexpr Architecture rows[] = {
      {"bloom", "BloomForCausalLM", "bloom", make_decoder<bloom_config, bloom_table>,
       decoder_to_gguf<bloom_config, "bloom">, bloom_from_gguf},
  };
  return rows;
}

}  // namespace qkv
