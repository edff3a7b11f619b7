// GPT-2 (Radford et al. 2019) and GPT-BigCode (StarCoder: Li et al., arXiv 2305.06161): learned positions,
// LayerNorm before each part, a plain network, one fused projection for queries, keys and values. GPT-2's
// Hugging Face matrices are stored (inputs, outputs); GPT-BigCode's heads share one key and value.
#include <cmath>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/models/decoder_rows.h"
#include "qkv/models/families.h"
#include "qkv/models/fused_rows.h"

namespace qkv {
namespace {

constexpr SizeKeys kNames = {.channels = "n_embd",
                             .layers = "n_layer",
                             .heads = "n_head",
                             .kv_heads = "n_head_kv",
                             .hidden = "n_inner",
                             .positions = "n_positions",
                             .default_positions = 1024};

DecoderConfig base(const JsonView& config, const char* model_type, const char* hf_class,
                   const char* activation) {
  DecoderConfig result = read_sizes(config, model_type, hf_class, kNames);
  result.block.norm = {.kind = NormConfig::Kind::layer,
                       .eps = static_cast<float>(config.number_or("layer_norm_epsilon", 1e-5)),
                       .bias = true};
  result.final_norm = result.block.norm;
  result.learned_positions = true;
  result.info.tied_embeddings = config.boolean_or("tie_word_embeddings", true);
  AttentionConfig& attention = result.block.attention;
  attention.qkv_bias = attention.out_bias = true;
  if (!config.boolean_or("scale_attn_weights", true)) attention.scale = 1;
  result.block.mlp.gated = false;
  result.block.mlp.bias = true;
  result.block.mlp.activation = activation_of(config, "activation_function", activation);
  return result;
}

std::vector<WeightRow> base_table(bool transposed) {
  const Placement turned = {.transposed = transposed};
  return {
      {"embed", "transformer.wte", "token_embd"},
      {"position", "transformer.wpe", "position_embd"},
      {"blocks.{}.attn_norm", "transformer.h.{}.ln_1", "blk.{}.attn_norm"},
      {"blocks.{}.attn.out", "transformer.h.{}.attn.c_proj", "blk.{}.attn_output", turned},
      {"blocks.{}.mlp_norm", "transformer.h.{}.ln_2", "blk.{}.ffn_norm"},
      {"blocks.{}.mlp.up", "transformer.h.{}.mlp.c_fc", "blk.{}.ffn_up", turned},
      {"blocks.{}.mlp.down", "transformer.h.{}.mlp.c_proj", "blk.{}.ffn_down", turned},
      {"norm", "transformer.ln_f", "output_norm"},
      {"head", "lm_head", "output"},
  };
}

Json base_from_gguf(const GgufKeys& keys, const char* model_type, const char* hf_class,
                    const char* activation) {
  Json config = keys.sizes(model_type, hf_class, kNames);
  config["layer_norm_epsilon"] = keys.number("attention.layer_norm_epsilon");
  config["activation_function"] = activation;
  return config;
}

DecoderConfig gpt2_config(const JsonView& config) {
  only(config, "scale_attn_by_inverse_layer_idx", false);
  only(config, "add_cross_attention", false);
  return base(config, "gpt2", "GPT2LMHeadModel", "gelu_new");
}

std::vector<WeightRow> gpt2_table(const DecoderConfig& config) {
  std::vector<WeightRow> rows = base_table(true);
  const FusedRows fused = one_after_the_other(config);
  add_fused(rows, "transformer.h.{}.attn.c_attn", transposed(fused), "blk.{}.attn_qkv", fused);
  return rows;
}

Json gpt2_from_gguf(const Metadata& metadata, const Checkpoint& checkpoint) {
  Json config = base_from_gguf(GgufKeys(metadata, checkpoint), "gpt2", "GPT2LMHeadModel", "gelu_new");
  config.erase("n_head_kv");
  return config;
}

DecoderConfig bigcode_config(const JsonView& config) {
  DecoderConfig result = base(config, "gpt_bigcode", "GPTBigCodeForCausalLM", "gelu_pytorch_tanh");
  result.info.kv_heads = config.boolean_or("multi_query", true) ? 1 : result.info.heads;
  result.block.attention.n_kv_heads = static_cast<int>(result.info.kv_heads);
  return result;
}

std::vector<WeightRow> bigcode_table(const DecoderConfig& config) {
  std::vector<WeightRow> rows = base_table(false);
  // With a key for every head they are fused head by head, which for a single key is one after the other.
  add_fused(rows, "transformer.h.{}.attn.c_attn", by_kv_head(config), "blk.{}.attn_qkv",
            one_after_the_other(config));
  return rows;
}

Json bigcode_from_gguf(const Metadata& metadata, const Checkpoint& checkpoint) {
  Json config = base_from_gguf(GgufKeys(metadata, checkpoint), "gpt_bigcode", "GPTBigCodeForCausalLM",
                               "gelu_pytorch_tanh");
  config["multi_query"] = config.value("n_head_kv", int64_t{1}) == 1;
  config.erase("n_head_kv");
  return config;
}

constexpr std::string_view kMasks[] = {".attn.bias", ".attn.masked_bias"};

}  // namespace

std::span<const Architecture> gpt2_architectures() {
  static constexpr Architecture rows[] = {
      {"gpt2", "GPT2LMHeadModel", "gpt2", make_decoder<gpt2_config, gpt2_table>,
       decoder_to_gguf<gpt2_config, "gpt2">, gpt2_from_gguf, kMasks},
      {"gpt_bigcode", "GPTBigCodeForCausalLM", "starcoder", make_decoder<bigcode_config, bigcode_table>,
       decoder_to_gguf<bigcode_config, "starcoder">, bigcode_from_gguf, kMasks},
  };
  return rows;
}

}  // namespace qkv
