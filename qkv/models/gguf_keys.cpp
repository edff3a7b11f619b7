#include "qkv/models/gguf_keys.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"

namespace qkv {
namespace {

// How much longer each wavelength is than without scaling.
std::vector<double> stretch(const RopeConfig& config) {
  RopeConfig plain = config;
  plain.scaling = RopeConfig::Scaling::none;
  const std::vector<float> scaled = Rope(config).frequencies(0), unscaled = Rope(plain).frequencies(0);
  std::vector<double> factors;
  for (size_t i = 0; i < scaled.size(); ++i) factors.push_back(double{unscaled[i]} / double{scaled[i]});
  return factors;
}

Tensor as_tensor(const std::vector<double>& values) {
  return Tensor::from(std::vector<float>(values.begin(), values.end()),
                      {static_cast<int64_t>(values.size())});
}

Json as_json(const std::vector<float>& values) {
  Json list = Json::array();
  for (const float value : values) list.push_back(value);
  return list;
}

class Writer {
 public:
  Writer(Metadata& metadata, const std::string& architecture)
      : metadata_(metadata), prefix_(architecture + ".") {}
  void u32(const char* key, int64_t value) { metadata_.set(prefix_ + key, static_cast<uint32_t>(value)); }
  void f32(const char* key, double value) { metadata_.set(prefix_ + key, static_cast<float>(value)); }
  void boolean(const char* key, bool value) { metadata_.set(prefix_ + key, value); }
  void string(const char* key, const char* value) { metadata_.set(prefix_ + key, std::string(value)); }

 private:
  Metadata& metadata_;
  std::string prefix_;
};

void write_rope(const DecoderConfig& config, Writer& write) {
  const RopeConfig& rope = config.ropes[0];
  write.u32("rope.dimension_count", rope.rotary_dim);
  const double dim = static_cast<double>(rope.rotary_dim);
  // Static NTK is nothing but another base. Dynamic NTK has no key: up to the original length it is plain.
  const bool ntk = rope.scaling == RopeConfig::Scaling::ntk;
  write.f32("rope.freq_base", ntk ? rope.theta * std::pow(rope.factor, dim / (dim - 2)) : rope.theta);
  if (config.ropes.size() > 1) write.f32("rope.freq_base_swa", config.ropes[1].theta);
  if (rope.scaling == RopeConfig::Scaling::linear) {
    write.string("rope.scaling.type", "linear");
    write.f32("rope.scaling.factor", rope.factor);
  }
  if (rope.scaling == RopeConfig::Scaling::yarn) {
    write.string("rope.scaling.type", "yarn");
    write.f32("rope.scaling.factor", rope.factor);
    write.u32("rope.scaling.original_context_length", rope.original_max_positions);
    if (rope.mscale_all_dim != 0) write.f32("rope.scaling.yarn_log_multiplier", 0.1 * rope.mscale_all_dim);
    if (rope.attention_factor > 0) {
      write.f32("rope.scaling.attn_factor", rope.attention_factor / yarn_mscale(rope.factor, 1));
    }
    if (rope.beta_fast != 32) write.f32("rope.scaling.yarn_beta_fast", rope.beta_fast);
    if (rope.beta_slow != 1) write.f32("rope.scaling.yarn_beta_slow", rope.beta_slow);
  }
  if (rope.scaling == RopeConfig::Scaling::longrope) {
    write.u32("rope.scaling.original_context_length", rope.original_max_positions);
    write.f32("rope.scaling.attn_factor", Rope(rope).magnitude(0));
  }
}

void write_experts(const MoeConfig& experts, Writer& write) {
  const RouterConfig& router = experts.router;
  write.u32("expert_count", router.experts);
  write.u32("expert_used_count", router.top_k);
  write.u32("expert_feed_forward_length", experts.expert.hidden);
  if (experts.shared_hidden > 0) write.u32("expert_shared_feed_forward_length", experts.shared_hidden);
  write.boolean("expert_weights_norm", router.normalize);
  write.u32("expert_gating_func", router.score == RouterConfig::Score::sigmoid ? 2 : 1);
  if (router.scale != 1) write.f32("expert_weights_scale", router.scale);
  if (router.groups > 1) {
    write.u32("expert_group_count", router.groups);
    write.u32("expert_group_used_count", router.top_groups);
  }
}

}  // namespace

void write_gguf_keys(const DecoderConfig& config, const std::string& architecture, Metadata& metadata) {
  Writer write(metadata, architecture);
  const ModelInfo& info = config.info;
  const AttentionConfig& attention = config.block.attention;
  write.u32("vocab_size", info.vocabulary);
  write.u32("context_length", info.max_positions);
  write.u32("embedding_length", info.channels);
  write.u32("block_count", info.layers);
  write.u32("feed_forward_length", info.hidden);
  write.u32("attention.head_count", info.heads);
  write.u32("attention.head_count_kv", info.kv_heads);
  if (info.head_dim * info.heads != info.channels) {
    write.u32("attention.key_length", info.head_dim);
    write.u32("attention.value_length", info.head_dim);
  }
  const bool rms = config.block.norm.kind == NormConfig::Kind::rms;
  write.f32(rms ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon", config.block.norm.eps);
  if (!attention.causal) write.boolean("attention.causal", false);
  if (attention.clip > 0) write.f32("attention.clamp_kqv", attention.clip);
  if (config.alibi_max_bias > 0) write.f32("attention.max_alibi_bias", config.alibi_max_bias);
  if (attention.scale > 0) write.f32("attention.scale", attention.scale);
  int64_t window = attention.window;
  for (const LayerVariant& layer : config.layers) window = std::max(window, layer.window);
  if (window > 0) write.u32("attention.sliding_window", window);
  if (attention.softcap > 0) write.f32("attn_logit_softcapping", attention.softcap);
  if (config.logit_softcap > 0) write.f32("final_logit_softcapping", config.logit_softcap);
  if (config.logit_scale != 1) write.f32("logit_scale", config.logit_scale);
  if (config.block.parallel || config.says_parallel)
    write.boolean("use_parallel_residual", config.block.parallel);
  if (!config.ropes.empty()) write_rope(config, write);
  if (config.block.experts) write_experts(*config.block.experts, write);
}

std::vector<std::pair<std::string, Tensor>> gguf_rope_tensors(const DecoderConfig& config) {
  if (config.ropes.empty()) return {};
  const RopeConfig& rope = config.ropes[0];
  if (rope.scaling == RopeConfig::Scaling::llama3) return {{"rope_freqs.weight", as_tensor(stretch(rope))}};
  if (rope.scaling == RopeConfig::Scaling::longrope) {
    return {{"rope_factors_long.weight", as_tensor(rope.long_factors)},
            {"rope_factors_short.weight", as_tensor(rope.short_factors)}};
  }
  return {};
}

GgufKeys::GgufKeys(const Metadata& metadata, const Checkpoint& checkpoint)
    : metadata_(metadata), checkpoint_(checkpoint), architecture_(metadata.string("general.architecture")) {}

bool GgufKeys::has(const char* key) const {
  return metadata_.has(full(key));
}
int64_t GgufKeys::integer(const char* key) const {
  return metadata_.integer(full(key));
}
int64_t GgufKeys::integer_or(const char* key, int64_t fallback) const {
  return metadata_.integer_or(full(key), fallback);
}
double GgufKeys::number(const char* key) const {
  return metadata_.number(full(key));
}
double GgufKeys::number_or(const char* key, double fallback) const {
  return metadata_.number_or(full(key), fallback);
}
bool GgufKeys::boolean_or(const char* key, bool fallback) const {
  return metadata_.boolean_or(full(key), fallback);
}
bool GgufKeys::has_tensor(const std::string& name) const {
  return checkpoint_.find(name) != nullptr;
}

Shape GgufKeys::shape_of(const std::string& name) const {
  const TensorEntry* entry = checkpoint_.find(name);
  require(entry != nullptr, "{}: tensor '{}' is missing", checkpoint_.path(), name);
  return entry->shape;
}

Json GgufKeys::sizes(const char* model_type, const char* hf_class, const SizeKeys& names) const {
  const int64_t heads = integer("attention.head_count"), channels = integer("embedding_length");
  Json config = Json::object();
  config["architectures"] = {hf_class};
  config["model_type"] = model_type;
  config[names.vocabulary] = shape_of("token_embd.weight")[0];
  config[names.channels] = channels;
  config[names.layers] = integer("block_count");
  config[names.heads] = heads;
  if (has("attention.head_count_kv")) config[names.kv_heads] = integer("attention.head_count_kv");
  const int64_t head_dim = integer_or("attention.key_length", heads > 0 ? channels / heads : 0);
  require(has("attention.kv_lora_rank") || integer_or("attention.value_length", head_dim) == head_dim,
          "{}: keys of {} and values of {} dimensions are not implemented for {}", checkpoint_.path(),
          head_dim, integer_or("attention.value_length", 0), architecture_);
  if (head_dim * heads != channels) config[names.head_dim] = head_dim;
  if (has("feed_forward_length")) config[names.hidden] = integer("feed_forward_length");
  config[names.positions] = integer("context_length");
  config["tie_word_embeddings"] = !has_tensor("output.weight");
  return config;
}

void GgufKeys::add_rope(Json& config, double default_theta) const {
  config["rope_theta"] = number_or("rope.freq_base", default_theta);
  const int64_t positions = integer("context_length");
  const std::string type = has("rope.scaling.type") ? metadata_.string(full("rope.scaling.type")) : "none";
  const double factor = number_or("rope.scaling.factor", number_or("rope.scale_linear", 1));
  if (has_tensor("rope_factors_long.weight")) {
    Json scaling = {{"rope_type", "longrope"},
                    {"short_factor", as_json(checkpoint_.read("rope_factors_short.weight").to_floats())},
                    {"long_factor", as_json(checkpoint_.read("rope_factors_long.weight").to_floats())}};
    if (has("rope.scaling.attn_factor")) scaling["attention_factor"] = number("rope.scaling.attn_factor");
    config["original_max_position_embeddings"] =
        integer_or("rope.scaling.original_context_length", positions);
    config["rope_scaling"] = scaling;
  } else if (has_tensor("rope_freqs.weight")) {
    config["rope_scaling"] = wavelength_scaling(config, checkpoint_.read("rope_freqs.weight").to_floats());
  } else if (type == "yarn") {
    config["rope_scaling"] = {
        {"rope_type", "yarn"},
        {"factor", factor},
        {"original_max_position_embeddings", integer_or("rope.scaling.original_context_length", positions)},
        {"beta_fast", number_or("rope.scaling.yarn_beta_fast", 32)},
        {"beta_slow", number_or("rope.scaling.yarn_beta_slow", 1)}};
    if (has("rope.scaling.attn_factor")) {
      config["rope_scaling"]["attention_factor"] =
          number("rope.scaling.attn_factor") * yarn_mscale(factor, 1);
    }
  } else if (factor != 1 && (type == "linear" || !has("rope.scaling.type"))) {
    config["rope_scaling"] = {{"rope_type", "linear"}, {"factor", factor}};
  } else {
    require(type == "none" || type == "linear" || type == "longrope",
            "{}: key '{}': expected none, linear, yarn or longrope, found '{}'", checkpoint_.path(),
            full("rope.scaling.type"), type);
  }
}

// Factors of wavelengths are Llama 3's if they equal what its parameters give; anything else is said as
// LongRoPE.
Json GgufKeys::wavelength_scaling(const Json& config, const std::vector<float>& factors) const {
  RopeConfig rope;
  rope.theta = config["rope_theta"].get<double>();
  rope.head_dim = rope.rotary_dim = 2 * static_cast<int64_t>(factors.size());
  rope.scaling = RopeConfig::Scaling::llama3;
  rope.factor = *std::max_element(factors.begin(), factors.end());
  for (rope.original_max_positions = 16; rope.factor > 1 && rope.original_max_positions <= 1 << 20;
       rope.original_max_positions *= 2) {
    const std::vector<double> wanted = stretch(rope);
    const bool same = std::equal(factors.begin(), factors.end(), wanted.begin(),
                                 [](float a, double b) { return std::abs(a - b) <= 1e-5 * b; });
    if (same) {
      return {{"rope_type", "llama3"},
              {"factor", rope.factor},
              {"low_freq_factor", rope.low_freq_factor},
              {"high_freq_factor", rope.high_freq_factor},
              {"original_max_position_embeddings", rope.original_max_positions}};
    }
  }
  return {{"rope_type", "longrope"},
          {"short_factor", as_json(factors)},
          {"long_factor", as_json(factors)},
          {"attention_factor", 1.0},
          {"original_max_position_embeddings", integer("context_length")}};
}

}  // namespace qkv
