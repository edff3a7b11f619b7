#include "qkv/models/hf_config.h"

#include <nlohmann/json.hpp>

#include "qkv/core/error.h"

namespace qkv {

int64_t positive(const JsonView& config, const char* key, int64_t largest) {
  const int64_t value = config.integer(key);
  require(0 < value && value <= largest, "{}: key '{}': expected 1 to {}, found {}", config.where(), key,
          largest, value);
  return value;
}

int64_t positive_or(const JsonView& config, const char* key, int64_t fallback, int64_t largest) {
  return config.has(key) ? positive(config, key, largest) : fallback;
}

double number_or_null(const JsonView& config, const char* key, double absent) {
  return config.json().contains(key) ? config.number_or(key, 0) : absent;
}

Activation activation_of(const JsonView& config, const char* key, const char* fallback) {
  try {
    return activation_from_name(config.string_or(key, fallback));
  } catch (const Error& error) {
    fail("{}: key '{}': {}", config.where(), key, error.what());
  }
}

DecoderConfig read_sizes(const JsonView& config, const char* model_type, const char* hf_class,
                         const SizeKeys& keys) {
  DecoderConfig result;
  ModelInfo& info = result.info;
  info.architecture = hf_class;
  info.model_type = model_type;
  info.vocabulary = positive(config, keys.vocabulary);
  info.channels = positive(config, keys.channels);
  info.layers = positive(config, keys.layers, 10000);
  info.heads = positive(config, keys.heads, 65536);
  info.kv_heads = positive_or(config, keys.kv_heads, info.heads, 65536);
  require(info.heads % info.kv_heads == 0, "{}: {} {} is not a multiple of {} {}", config.where(), keys.heads,
          info.heads, keys.kv_heads, info.kv_heads);
  if (config.has(keys.head_dim) || keys.default_head_dim > 0) {
    info.head_dim = positive_or(config, keys.head_dim, keys.default_head_dim, 65536);
  } else {
    require(info.channels % info.heads == 0, "{}: {} {} is not a multiple of {} {}", config.where(),
            keys.channels, info.channels, keys.heads, info.heads);
    info.head_dim = info.channels / info.heads;
  }
  info.hidden = positive_or(config, keys.hidden, 4 * info.channels);
  info.max_positions = positive_or(config, keys.positions, keys.default_positions);

  AttentionConfig& attention = result.block.attention;
  attention.channels = info.channels;
  attention.n_heads = static_cast<int>(info.heads);
  attention.n_kv_heads = static_cast<int>(info.kv_heads);
  attention.head_dim = static_cast<int>(info.head_dim);
  result.block.mlp.channels = info.channels;
  result.block.mlp.hidden = info.hidden;
  return result;
}

RopeConfig read_rope(const JsonView& config, const DecoderConfig& decoder, double default_theta,
                     int64_t rotary_dim) {
  RopeConfig rope;
  rope.theta = config.number_or("rope_theta", default_theta);
  require(rope.theta > 1, "{}: key 'rope_theta': expected more than 1, found {}", config.where(), rope.theta);
  rope.head_dim = decoder.info.head_dim;
  rope.rotary_dim = rotary_dim > 0 ? rotary_dim : rope.head_dim;
  require(rope.rotary_dim % 2 == 0 && rope.rotary_dim <= rope.head_dim,
          "{}: expected an even number of rotated dimensions up to the head's {}, found {}", config.where(),
          rope.head_dim, rope.rotary_dim);
  rope.max_positions = decoder.info.max_positions;
  read_rope_scaling(config, rope);
  return rope;
}

int64_t rotary_dim_of(const JsonView& config, const DecoderConfig& decoder, double default_factor) {
  const double factor = config.number_or("partial_rotary_factor", default_factor);
  require(factor > 0 && factor <= 1,
          "{}: key 'partial_rotary_factor': expected more than 0, at most 1, found {}", config.where(),
          factor);
  return static_cast<int64_t>(static_cast<double>(decoder.info.head_dim) * factor);
}

std::vector<LayerVariant> read_windows(const JsonView& config, int64_t layers, int64_t window,
                                       const std::function<bool(int64_t layer)>& sliding) {
  std::vector<LayerVariant> variants(static_cast<size_t>(layers));
  const std::vector<std::string> types = config.strings_or_empty("layer_types");
  require(types.empty() || types.size() == variants.size(),
          "{}: key 'layer_types': expected {} entries, found {}", config.where(), layers, types.size());
  for (size_t i = 0; i < variants.size(); ++i) {
    bool slides = types.empty() && sliding(static_cast<int64_t>(i));
    if (!types.empty()) {
      require(types[i] == "sliding_attention" || types[i] == "full_attention",
              "{}: key 'layer_types': expected sliding_attention or full_attention, found '{}'",
              config.where(), types[i]);
      slides = types[i] == "sliding_attention";
    }
    if (slides) variants[i].window = window;
  }
  return variants;
}

void only(const JsonView& config, const char* key, bool value) {
  require(config.boolean_or(key, value) == value, "{}: key '{}': expected {}; {} is not implemented",
          config.where(), key, value, !value);
}

}  // namespace qkv
