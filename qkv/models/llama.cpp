#include "qkv/models/llama.h"

#include <nlohmann/json.hpp>

#include "qkv/core/error.h"

namespace qkv {
namespace {

int64_t positive(const JsonView& config, const char* key, int64_t largest = int64_t{1} << 31) {
  const int64_t value = config.integer(key);
  require(0 < value && value <= largest, "{}: key '{}': expected 1 to {}, found {}", config.where(), key, largest, value);
  return value;
}

AttentionConfig attention_config(const LlamaConfig& config) {
  AttentionConfig attention;
  attention.channels = config.channels;
  attention.n_heads = config.heads;
  attention.n_kv_heads = config.kv_heads;
  attention.head_dim = config.head_dim;
  attention.qkv_bias = attention.out_bias = config.attention_bias;
  return attention;
}

}  // namespace

LlamaConfig LlamaConfig::from_hf(const JsonView& config) {
  LlamaConfig result;
  result.vocabulary = positive(config, "vocab_size");
  result.channels = positive(config, "hidden_size");
  result.hidden = positive(config, "intermediate_size");
  result.layers = positive(config, "num_hidden_layers", 10000);
  result.heads = static_cast<int>(positive(config, "num_attention_heads", 65536));
  result.kv_heads = config.has("num_key_value_heads") ? static_cast<int>(positive(config, "num_key_value_heads", 65536)) : result.heads;
  require(result.heads % result.kv_heads == 0, "{}: num_attention_heads {} is not a multiple of num_key_value_heads {}", config.where(),
          result.heads, result.kv_heads);
  if (config.has("head_dim")) {
    result.head_dim = static_cast<int>(positive(config, "head_dim", 65536));
  } else {
    require(result.channels % result.heads == 0, "{}: hidden_size {} is not a multiple of num_attention_heads {}", config.where(),
            result.channels, result.heads);
    result.head_dim = static_cast<int>(result.channels / result.heads);
  }
  require(result.head_dim % 2 == 0, "{}: expected an even head dimension for rotary positions, found {}", config.where(), result.head_dim);
  result.max_positions = config.has("max_position_embeddings") ? positive(config, "max_position_embeddings") : 2048;
  result.norm_eps = config.number_or("rms_norm_eps", 1e-6);
  result.attention_bias = config.boolean_or("attention_bias", false);
  result.mlp_bias = config.boolean_or("mlp_bias", false);
  result.tied_embeddings = config.boolean_or("tie_word_embeddings", false);
  result.activation = activation_from_name(config.string_or("hidden_act", "silu"));
  result.rope.theta = config.number_or("rope_theta", 10000.0);
  result.rope.head_dim = result.rope.rotary_dim = result.head_dim;
  result.rope.max_positions = result.max_positions;
  read_rope_scaling(config, result.rope);
  return result;
}

struct Llama::Block : public Module {
  explicit Block(const LlamaConfig& config)
      : attention_norm(config.channels, static_cast<float>(config.norm_eps)),
        attention(attention_config(config)),
        mlp_norm(config.channels, static_cast<float>(config.norm_eps)),
        mlp(config.channels, config.hidden, config.activation, config.mlp_bias) {}

  // x (T, C) -> (T, C)
  Tensor forward(const Tensor& x, const Pass& pass, const ops::RopeTable& rope, size_t layer) const {
    const auto drop = [&](const Tensor& y, uint64_t site) {
      return ops::dropout(y, pass.dropout, pass.dropout_seed, pass.dropout_stream + 16 * (layer + 1) + site);
    };
    const Tensor mixed = ops::add(x, drop(attention.forward(attention_norm.forward(x), pass, &rope, layer), 0));
    return ops::add(mixed, drop(mlp.forward(mlp_norm.forward(mixed)), 1));
  }

  void visit(const std::string& prefix, const ParameterVisitor& visitor) override {
    attention_norm.visit(prefix + "attn_norm.", visitor);
    attention.visit(prefix + "attn.", visitor);
    mlp_norm.visit(prefix + "mlp_norm.", visitor);
    mlp.visit(prefix + "mlp.", visitor);
  }

  RmsNorm attention_norm;
  SelfAttention attention;
  RmsNorm mlp_norm;
  GatedMlp mlp;
};

Llama::Llama(const LlamaConfig& config, const Json& source)
    : config_(config),
      source_(std::make_unique<Json>(source)),
      rope_(config.rope),
      embedding_(Tensor::placeholder({config.vocabulary, config.channels})),
      norm_(config.channels, static_cast<float>(config.norm_eps)),
      head_(config.tied_embeddings ? Tensor() : Tensor::placeholder({config.vocabulary, config.channels})) {
  for (int64_t i = 0; i < config.layers; ++i) blocks_.push_back(std::make_unique<Block>(config));
  info_ = {"LlamaForCausalLM", "llama", config.vocabulary, config.channels, config.layers, config.heads,
           config.kv_heads, config.head_dim, config.hidden, config.max_positions, config.tied_embeddings};
}

Llama::~Llama() = default;

Tensor Llama::forward(const std::vector<int32_t>& tokens, const Pass& pass) const {
  require(static_cast<int64_t>(tokens.size()) == pass.tokens(), "llama: expected {} tokens for this pass, found {}", pass.tokens(),
          tokens.size());
  const ops::RopeTable rope = rope_.table(pass.positions);
  Tensor x = ops::embedding(tokens, embedding_, pass.compute_type);  // (T, C)
  x = ops::dropout(x, pass.dropout, pass.dropout_seed, pass.dropout_stream);
  if (pass.checkpoint_activations && gradient_mode()) {
    const auto kept = std::make_shared<const Pass>(pass);  // backward runs after the caller's Pass is gone
    for (size_t i = 0; i < blocks_.size(); ++i) {
      const Block* block = blocks_[i].get();
      x = checkpoint([=](const std::vector<Tensor>& in) { return block->forward(in[0], *kept, rope, i); }, {x});
    }
  } else {
    for (size_t i = 0; i < blocks_.size(); ++i) x = blocks_[i]->forward(x, pass, rope, i);
  }
  for (size_t s = 0; s < pass.states.size(); ++s) {
    pass.states[s]->length += pass.sequences.offsets[s + 1] - pass.sequences.offsets[s];
  }
  return norm_.forward(x);
}

SequenceState Llama::make_state() const {
  SequenceState state;
  for (const auto& block : blocks_) state.layers.push_back(block->attention.make_state());
  return state;
}

void Llama::visit(const std::string& prefix, const ParameterVisitor& visitor) {
  visitor(prefix + "embed.weight", embedding_);
  for (size_t i = 0; i < blocks_.size(); ++i) blocks_[i]->visit(prefix + "blocks." + std::to_string(i) + ".", visitor);
  norm_.visit(prefix + "norm.", visitor);
  if (head_.defined()) visitor(prefix + "head.weight", head_);
}

std::vector<WeightRow> Llama::weight_table() const {
  const Placement whole, turned = {.rope_head = config_.head_dim};
  return {
      {"embed", "model.embed_tokens", "token_embd"},
      {"blocks.{}.attn_norm", "model.layers.{}.input_layernorm", "blk.{}.attn_norm"},
      {"blocks.{}.attn.q", "model.layers.{}.self_attn.q_proj", "blk.{}.attn_q", whole, turned},
      {"blocks.{}.attn.k", "model.layers.{}.self_attn.k_proj", "blk.{}.attn_k", whole, turned},
      {"blocks.{}.attn.v", "model.layers.{}.self_attn.v_proj", "blk.{}.attn_v"},
      {"blocks.{}.attn.out", "model.layers.{}.self_attn.o_proj", "blk.{}.attn_output"},
      {"blocks.{}.mlp_norm", "model.layers.{}.post_attention_layernorm", "blk.{}.ffn_norm"},
      {"blocks.{}.mlp.gate", "model.layers.{}.mlp.gate_proj", "blk.{}.ffn_gate"},
      {"blocks.{}.mlp.up", "model.layers.{}.mlp.up_proj", "blk.{}.ffn_up"},
      {"blocks.{}.mlp.down", "model.layers.{}.mlp.down_proj", "blk.{}.ffn_down"},
      {"norm", "model.norm", "output_norm"},
      {"head", "lm_head", "output"},
  };
}

Json Llama::hf_config() const {
  Json json = *source_;
  json["architectures"] = {info_.architecture};
  json["model_type"] = info_.model_type;
  json["vocab_size"] = config_.vocabulary;
  json["hidden_size"] = config_.channels;
  json["intermediate_size"] = config_.hidden;
  json["num_hidden_layers"] = config_.layers;
  json["num_attention_heads"] = config_.heads;
  json["num_key_value_heads"] = config_.kv_heads;
  json["head_dim"] = config_.head_dim;
  json["max_position_embeddings"] = config_.max_positions;
  json["rms_norm_eps"] = config_.norm_eps;
  json["hidden_act"] = activation_name(config_.activation);
  json["attention_bias"] = config_.attention_bias;
  json["mlp_bias"] = config_.mlp_bias;
  json["tie_word_embeddings"] = config_.tied_embeddings;
  json["rope_theta"] = config_.rope.theta;
  json["rope_scaling"] = rope_scaling_json(config_.rope);
  return json;
}

}  // namespace qkv
