// GPT-J (Wang & Komatsuzaki 2021): attention and network side by side behind one LayerNorm; neighbouring
// dimensions turn together; the head has a bias.
#include <nlohmann/json.hpp>

#include "qkv/models/decoder_rows.h"
#include "qkv/models/families.h"

namespace qkv {
namespace {

constexpr SizeKeys kNames = {.channels = "n_embd",
                             .layers = "n_layer",
                             .heads = "n_head",
                             .kv_heads = "n_head_kv",
                             .hidden = "n_inner",
                             .positions = "n_positions"};

DecoderConfig gptj_config(const JsonView& config) {
  DecoderConfig result = read_sizes(config, "gptj", "GPTJForCausalLM", kNames);
  result.block.norm = {.kind = NormConfig::Kind::layer,
                       .eps = static_cast<float>(config.number_or("layer_norm_epsilon", 1e-5)),
                       .bias = true};
  result.final_norm = result.block.norm;
  result.block.parallel = result.block.shared_norm = true;
  result.block.mlp.gated = false;
  result.block.mlp.bias = true;
  result.block.mlp.activation = activation_of(config, "activation_function", "gelu_new");
  result.info.tied_embeddings = config.boolean_or("tie_word_embeddings", false);
  result.head_bias = true;
  result.ropes = {
      read_rope(config, result, 10000, config.has("rotary_dim") ? positive(config, "rotary_dim") : 0)};
  result.ropes[0].interleaved = true;
  return result;
}

std::vector<WeightRow> gptj_table(const DecoderConfig&) {
  return {
      {"embed", "transformer.wte", "token_embd"},
      {"blocks.{}.attn_norm", "transformer.h.{}.ln_1", "blk.{}.attn_norm"},
      {"blocks.{}.attn.q", "transformer.h.{}.attn.q_proj", "blk.{}.attn_q"},
      {"blocks.{}.attn.k", "transformer.h.{}.attn.k_proj", "blk.{}.attn_k"},
      {"blocks.{}.attn.v", "transformer.h.{}.attn.v_proj", "blk.{}.attn_v"},
      {"blocks.{}.attn.out", "transformer.h.{}.attn.out_proj", "blk.{}.attn_output"},
      {"blocks.{}.mlp.up", "transformer.h.{}.mlp.fc_in", "blk.{}.ffn_up"},
      {"blocks.{}.mlp.down", "transformer.h.{}.mlp.fc_out", "blk.{}.ffn_down"},
      {"norm", "transformer.ln_f", "output_norm"},
      {"head", "lm_head", "output"},
  };
}

Json gptj_from_gguf(const Metadata& metadata, const Checkpoint& checkpoint) {
  const GgufKeys keys(metadata, checkpoint);
  Json config = keys.sizes("gptj", "GPTJForCausalLM", kNames);
  config.erase("n_head_kv");
  config["layer_norm_epsilon"] = keys.number("attention.layer_norm_epsilon");
  config["activation_function"] = "gelu_new";
  config["rotary_dim"] = keys.integer("rope.dimension_count");
  return config;
}

constexpr std::string_view kMasks[] = {".attn.bias", ".attn.masked_bias"};

}  // namespace

std::span<const Architecture> gptj_architectures() {
  static constexpr Architecture rows[] = {
      {"gptj", "GPTJForCausalLM", "gptj", make_decoder<gptj_config, gptj_table>,
       decoder_to_gguf<gptj_config, "gptj">, gptj_from_gguf, kMasks},
  };
  return rows;
}

}  // namespace qkv
