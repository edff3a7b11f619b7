// Encoders: BERT (Devlin et al., arXiv 1810.04805), RoBERTa (Liu et al., arXiv 1907.11692) and DistilBERT
// (Sanh et al., arXiv 1910.01108): every token sees every other, learned positions, norms after the residual
// sums. As bare models (embeddings of sentences are means of their hidden states) or with the head that
// guesses masked words.
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/models/decoder_rows.h"
#include "qkv/models/families.h"

namespace qkv {
namespace {

// What all of them share; `mlm`: with the masked-word head.
void set_encoder(DecoderConfig& result, float eps, Activation activation, bool mlm) {
  result.block.norm = {.kind = NormConfig::Kind::layer, .eps = eps, .bias = true};
  result.block.norms = BlockConfig::Norms::residual;
  result.block.attention.causal = false;
  result.block.attention.qkv_bias = result.block.attention.out_bias = true;
  result.block.mlp.gated = false;
  result.block.mlp.bias = true;
  result.block.mlp.activation = activation;
  result.learned_positions = true;
  result.embedding_norm = result.block.norm;
  result.info.causal = false;
  result.info.tied_embeddings = mlm;
  result.headless = !mlm;
  if (mlm) {
    result.head_transform = {activation, result.block.norm};
    result.head_bias = true;
  }
}

// ---- BERT, RoBERTa ----

DecoderConfig bert_base(const JsonView& config, const char* model_type, const char* hf_class, bool mlm,
                        double default_eps) {
  DecoderConfig result =
      read_sizes(config, model_type, hf_class, {.kv_heads = "", .head_dim = "", .default_positions = 512});
  const std::string positions = config.string_or("position_embedding_type", "absolute");
  require(positions == "absolute", "{}: key 'position_embedding_type': expected absolute, found '{}'",
          config.where(), positions);
  only(config, "is_decoder", false);
  set_encoder(result, static_cast<float>(config.number_or("layer_norm_eps", default_eps)),
              activation_of(config, "hidden_act", "gelu"), mlm);
  result.token_types = config.integer_or("type_vocab_size", 2);
  require(0 <= result.token_types && result.token_types <= 65536,
          "{}: key 'type_vocab_size': expected 0 to 65536, found {}", config.where(), result.token_types);
  result.pooler = !mlm && config.boolean_or("add_pooling_layer", true);
  return result;
}

DecoderConfig bert_config(const JsonView& config) {
  return bert_base(config, "bert", "BertModel", false, 1e-12);
}
DecoderConfig bert_mlm_config(const JsonView& config) {
  return bert_base(config, "bert", "BertForMaskedLM", true, 1e-12);
}

// Positions begin behind the padding token's id.
void offset_positions(const JsonView& config, DecoderConfig& result) {
  result.position_offset = config.integer_or("pad_token_id", 1) + 1;
  result.info.max_positions -= result.position_offset;
  require(0 < result.position_offset && 0 < result.info.max_positions,
          "{}: key 'max_position_embeddings': expected more than the {} rows before the first position",
          config.where(), result.position_offset);
}

template <Name type, Name hf_class, bool mlm>
DecoderConfig roberta_config(const JsonView& config) {
  DecoderConfig result = bert_base(config, type.text, hf_class.text, mlm, 1e-12);
  offset_positions(config, result);
  return result;
}

std::vector<WeightRow> bert_rows(const std::string& prefix) {
  const std::string layer = prefix + "encoder.layer.{}.";
  return {
      {"embed", prefix + "embeddings.word_embeddings", "token_embd"},
      {"position", prefix + "embeddings.position_embeddings", "position_embd"},
      {"token_type", prefix + "embeddings.token_type_embeddings", "token_types"},
      {"embed_norm", prefix + "embeddings.LayerNorm", "token_embd_norm"},
      {"blocks.{}.attn.q", layer + "attention.self.query", "blk.{}.attn_q"},
      {"blocks.{}.attn.k", layer + "attention.self.key", "blk.{}.attn_k"},
      {"blocks.{}.attn.v", layer + "attention.self.value", "blk.{}.attn_v"},
      {"blocks.{}.attn.out", layer + "attention.output.dense", "blk.{}.attn_output"},
      {"blocks.{}.attn_post_norm", layer + "attention.output.LayerNorm", "blk.{}.attn_output_norm"},
      {"blocks.{}.mlp.up", layer + "intermediate.dense", "blk.{}.ffn_up"},
      {"blocks.{}.mlp.down", layer + "output.dense", "blk.{}.ffn_down"},
      {"blocks.{}.mlp_post_norm", layer + "output.LayerNorm", "blk.{}.layer_output_norm"},
      {"pooler", prefix + "pooler.dense", "", {.optional = true}, {.optional = true}},
  };
}

std::vector<WeightRow> bert_table(const DecoderConfig& config) {
  std::vector<WeightRow> rows = bert_rows(config.head_transform ? "bert." : "");
  rows.push_back({"head_dense", "cls.predictions.transform.dense", ""});
  rows.push_back({"head_norm", "cls.predictions.transform.LayerNorm", ""});
  rows.push_back({"head", "cls.predictions", ""});
  return rows;
}

std::vector<WeightRow> roberta_table(const DecoderConfig& config) {
  std::vector<WeightRow> rows = bert_rows(config.head_transform ? "roberta." : "");
  for (WeightRow& row : rows) row.gguf.clear();
  rows.push_back({"head_dense", "lm_head.dense", ""});
  rows.push_back({"head_norm", "lm_head.layer_norm", ""});
  rows.push_back({"head", "lm_head", ""});
  return rows;
}

void encoder_keys(const DecoderConfig& config, Metadata& metadata) {
  write_gguf_keys(config, "bert", metadata);
  metadata.set("bert.pooling_type", uint32_t{1});  // the mean
  metadata.set("tokenizer.ggml.token_type_count", static_cast<uint32_t>(config.token_types));
}

void bert_to_gguf(const JsonView& config, Metadata& metadata) {
  encoder_keys(bert_config(config), metadata);
}

void bert_mlm_to_gguf(const JsonView& config, Metadata&) {
  fail("{}: GGUF has no place for the head that guesses masked words; convert the model as BertModel",
       config.where());
}

Json bert_from_gguf(const Metadata& metadata, const Checkpoint& checkpoint) {
  const GgufKeys keys(metadata, checkpoint);
  Json config = keys.sizes("bert", "BertModel");
  config.erase("num_key_value_heads");
  config.erase("tie_word_embeddings");
  config["hidden_act"] = "gelu";
  config["layer_norm_eps"] = keys.number("attention.layer_norm_epsilon");
  config["type_vocab_size"] =
      keys.has_tensor("token_types.weight") ? keys.shape_of("token_types.weight")[0] : 0;
  config["add_pooling_layer"] = false;
  return config;
}

// ---- DistilBERT ----

template <Name hf_class, bool mlm>
DecoderConfig distilbert_config(const JsonView& config) {
  DecoderConfig result = read_sizes(config, "distilbert", hf_class.text,
                                    {.channels = "dim",
                                     .layers = "n_layers",
                                     .heads = "n_heads",
                                     .kv_heads = "",
                                     .head_dim = "",
                                     .hidden = "hidden_dim",
                                     .default_positions = 512});
  set_encoder(result, 1e-12f, activation_of(config, "activation", "gelu"), mlm);
  return result;
}

std::vector<WeightRow> distilbert_table(const DecoderConfig& config) {
  const std::string prefix = config.head_transform ? "distilbert." : "",
                    layer = prefix + "transformer.layer.{}.";
  return {
      {"embed", prefix + "embeddings.word_embeddings", "token_embd"},
      {"position", prefix + "embeddings.position_embeddings", "position_embd"},
      {"embed_norm", prefix + "embeddings.LayerNorm", "token_embd_norm"},
      {"blocks.{}.attn.q", layer + "attention.q_lin", "blk.{}.attn_q"},
      {"blocks.{}.attn.k", layer + "attention.k_lin", "blk.{}.attn_k"},
      {"blocks.{}.attn.v", layer + "attention.v_lin", "blk.{}.attn_v"},
      {"blocks.{}.attn.out", layer + "attention.out_lin", "blk.{}.attn_output"},
      {"blocks.{}.attn_post_norm", layer + "sa_layer_norm", "blk.{}.attn_output_norm"},
      {"blocks.{}.mlp.up", layer + "ffn.lin1", "blk.{}.ffn_up"},
      {"blocks.{}.mlp.down", layer + "ffn.lin2", "blk.{}.ffn_down"},
      {"blocks.{}.mlp_post_norm", layer + "output_layer_norm", "blk.{}.layer_output_norm"},
      {"head_dense", "vocab_transform", ""},
      {"head_norm", "vocab_layer_norm", ""},
      {"head", "vocab_projector", ""},
  };
}

// A file read back is a BERT without types of tokens.
void distilbert_to_gguf(const JsonView& config, Metadata& metadata) {
  encoder_keys(distilbert_config<"DistilBertModel", false>(config), metadata);
}

constexpr std::string_view kIgnored[] = {".position_ids",
                                         "pooler.dense.weight",
                                         "pooler.dense.bias",
                                         "cls.predictions.decoder.weight",
                                         "cls.predictions.decoder.bias",
                                         "cls.seq_relationship.weight",
                                         "cls.seq_relationship.bias",
                                         "lm_head.decoder.weight",
                                         "lm_head.decoder.bias",
                                         "vocab_projector.weight"};

}  // namespace

std::span<const Architecture> bert_architectures() {
  static constexpr Architecture rows[] = {
      {"bert", "BertModel", "bert", make_decoder<bert_config, bert_table>, bert_to_gguf, bert_from_gguf,
       kIgnored},
      {"bert", "BertForMaskedLM", "bert", make_decoder<bert_mlm_config, bert_table>, bert_mlm_to_gguf,
       nullptr, kIgnored},
      {"roberta", "RobertaModel", "",
       make_decoder<roberta_config<"roberta", "RobertaModel", false>, roberta_table>, nullptr, nullptr,
       kIgnored},
      {"roberta", "RobertaForMaskedLM", "",
       make_decoder<roberta_config<"roberta", "RobertaForMaskedLM", true>, roberta_table>, nullptr, nullptr,
       kIgnored},
      {"xlm-roberta", "XLMRobertaModel", "",
       make_decoder<roberta_config<"xlm-roberta", "XLMRobertaModel", false>, roberta_table>, nullptr, nullptr,
       kIgnored},
      {"xlm-roberta", "XLMRobertaForMaskedLM", "",
       make_decoder<roberta_config<"xlm-roberta", "XLMRobertaForMaskedLM", true>, roberta_table>, nullptr,
       nullptr, kIgnored},
      {"distilbert", "DistilBertModel", "bert",
       make_decoder<distilbert_config<"DistilBertModel", false>, distilbert_table>, distilbert_to_gguf,
       nullptr, kIgnored},
      {"distilbert", "DistilBertForMaskedLM", "bert",
       make_decoder<distilbert_config<"DistilBertForMaskedLM", true>, distilbert_table>, bert_mlm_to_gguf,
       nullptr, kIgnored},
  };
  return rows;
}

}  // namespace qkv
