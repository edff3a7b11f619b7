// OPT (Zhang et al., arXiv 2205.01068): learned positions that begin at row 2, ReLU, biases everywhere. The
// 350M model norms after the residual sum and embeds in fewer dimensions than it works in.
#include <nlohmann/json.hpp>

#include "qkv/models/decoder_rows.h"
#include "qkv/models/families.h"

namespace qkv {
namespace {

DecoderConfig opt_config(const JsonView& config) {
  DecoderConfig result = read_sizes(config, "opt", "OPTForCausalLM", {.hidden = "ffn_dim"});
  const bool before = config.boolean_or("do_layer_norm_before", true);
  const bool affine = config.boolean_or("layer_norm_elementwise_affine", true);
  result.block.norm = {.kind = NormConfig::Kind::layer, .eps = 1e-5f, .weight = affine, .bias = affine};
  result.block.norms = before ? BlockConfig::Norms::before : BlockConfig::Norms::residual;
  if (before && !config.boolean_or("_remove_final_layer_norm", false)) result.final_norm = result.block.norm;
  const bool bias = config.boolean_or("enable_bias", true);
  result.block.attention.qkv_bias = result.block.attention.out_bias = bias;
  result.block.mlp.gated = false;
  result.block.mlp.bias = bias;
  result.block.mlp.activation = activation_of(config, "activation_function", "relu");
  result.learned_positions = true;
  result.position_offset = 2;
  result.embedding_width = positive_or(config, "word_embed_proj_dim", result.info.channels);
  result.info.tied_embeddings = config.boolean_or("tie_word_embeddings", true);
  return result;
}

std::vector<WeightRow> opt_table(const DecoderConfig& config) {
  const bool before = config.block.norms == BlockConfig::Norms::before;
  return {
      {"embed", "model.decoder.embed_tokens", ""},
      {"position", "model.decoder.embed_positions", ""},
      {"project_in", "model.decoder.project_in", ""},
      {"project_out", "model.decoder.project_out", ""},
      {before ? "blocks.{}.attn_norm" : "blocks.{}.attn_post_norm",
       "model.decoder.layers.{}.self_attn_layer_norm", ""},
      {"blocks.{}.attn.q", "model.decoder.layers.{}.self_attn.q_proj", ""},
      {"blocks.{}.attn.k", "model.decoder.layers.{}.self_attn.k_proj", ""},
      {"blocks.{}.attn.v", "model.decoder.layers.{}.self_attn.v_proj", ""},
      {"blocks.{}.attn.out", "model.decoder.layers.{}.self_attn.out_proj", ""},
      {before ? "blocks.{}.mlp_norm" : "blocks.{}.mlp_post_norm", "model.decoder.layers.{}.final_layer_norm",
       ""},
      {"blocks.{}.mlp.up", "model.decoder.layers.{}.fc1", ""},
      {"blocks.{}.mlp.down", "model.decoder.layers.{}.fc2", ""},
      {"norm", "model.decoder.final_layer_norm", ""},
      {"head", "lm_head", ""},
  };
}

}  // namespace

std::span<const Architecture> opt_architectures() {
  static constexpr Architecture rows[] = {
      {"opt", "OPTForCausalLM", "", make_decoder<opt_config, opt_table>, nullptr, nullptr},
  };
  return rows;
}

}  // namespace qkv
