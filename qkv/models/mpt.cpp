// MPT (MosaicML 2023): ALiBi of any number of heads, no biases at all, queries, keys and values fused one
// after the other.
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/models/decoder_rows.h"
#include "qkv/models/families.h"
#include "qkv/models/fused_rows.h"

namespace qkv {
namespace {

constexpr SizeKeys kNames = {.channels = "d_model",
                             .layers = "n_layers",
                             .heads = "n_heads",
                             .kv_heads = "kv_n_heads",
                             .positions = "max_seq_len"};

DecoderConfig mpt_config(const JsonView& config) {
  DecoderConfig result = read_sizes(config, "mpt", "MptForCausalLM", kNames);
  only(config, "no_bias", true);
  require(!config.has("logit_scale"), "{}: key 'logit_scale': expected null; others are not implemented",
          config.where());
  const int64_t ratio = positive_or(config, "expansion_ratio", 4);
  result.info.hidden = result.block.mlp.hidden =
      positive_or(config, "ffn_hidden_size", ratio * result.info.channels);
  result.block.norm = {.kind = NormConfig::Kind::layer,
                       .eps = static_cast<float>(config.number_or("layer_norm_epsilon", 1e-5))};
  result.final_norm = result.block.norm;
  result.info.tied_embeddings = config.boolean_or("tie_word_embeddings", true);
  result.block.mlp.gated = false;
  result.block.mlp.activation = Activation::gelu_erf;

  AttentionConfig& attention = result.block.attention;
  double max_bias = 8;
  if (config.has("attn_config")) {
    const JsonView own = config.object("attn_config");
    only(own, "qk_ln", false);
    only(own, "prefix_lm", false);
    only(own, "alibi", true);
    max_bias = own.number_or("alibi_bias_max", 8);
    require(max_bias > 0, "{}: key 'attn_config.alibi_bias_max': expected more than 0, found {}",
            config.where(), max_bias);
    attention.clip = static_cast<float>(own.number_or("clip_qkv", 0));
    attention.scale = static_cast<float>(own.number_or("softmax_scale", 0));
  }
  attention.alibi_slopes = alibi_slopes(attention.n_heads, max_bias);
  result.alibi_max_bias = static_cast<float>(max_bias);
  return result;
}

std::vector<WeightRow> mpt_table(const DecoderConfig& config) {
  std::vector<WeightRow> rows = {
      {"embed", "transformer.wte", "token_embd"},
      {"blocks.{}.attn_norm", "transformer.blocks.{}.norm_1", "blk.{}.attn_norm"},
      {"blocks.{}.attn.out", "transformer.blocks.{}.attn.out_proj", "blk.{}.attn_output"},
      {"blocks.{}.mlp_norm", "transformer.blocks.{}.norm_2", "blk.{}.ffn_norm"},
      {"blocks.{}.mlp.up", "transformer.blocks.{}.ffn.up_proj", "blk.{}.ffn_up"},
      {"blocks.{}.mlp.down", "transformer.blocks.{}.ffn.down_proj", "blk.{}.ffn_down"},
      {"norm", "transformer.norm_f", "output_norm"},
      {"head", "lm_head", "output"},
  };
  const FusedRows fused = one_after_the_other(config);
  add_fused(rows, "transformer.blocks.{}.attn.Wqkv", fused, "blk.{}.attn_qkv", fused);
  return rows;
}

Json mpt_from_gguf(const Metadata& metadata, const Checkpoint& checkpoint) {
  const GgufKeys keys(metadata, checkpoint);
  require(!keys.has_tensor("position_embd.weight") && !keys.has_tensor("blk.0.attn_qkv.bias"),
          "{}: MPT with learned positions or biases is not implemented", checkpoint.path());
  SizeKeys names = kNames;
  names.hidden = "ffn_hidden_size";
  Json config = keys.sizes("mpt", "MptForCausalLM", names);
  config["layer_norm_epsilon"] = keys.number("attention.layer_norm_epsilon");
  config["attn_config"] = {{"alibi", true},
                           {"alibi_bias_max", keys.number_or("attention.max_alibi_bias", 8)}};
  if (keys.has("attention.clamp_kqv")) config["attn_config"]["clip_qkv"] = keys.number("attention.clamp_kqv");
  return config;
}

}  // namespace

std::span<const Architecture> mpt_architectures() {
  static constexpr Architecture rows[] = {
      {"mpt", "MptForCausalLM", "mpt", make_decoder<mpt_config, mpt_table>,
       decoder_to_gguf<mpt_config, "mpt">, mpt_from_gguf},
  };
  return rows;
}

}  // namespace qkv
