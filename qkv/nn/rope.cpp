#include "qkv/nn/rope.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"

namespace qkv {
namespace {

constexpr double kTwoPi = 6.283185307179586476925;

// YaRN: blends interpolated and original frequencies over the dimensions whose wavelengths turn beta_slow..beta_fast times
// within the original context.
void blend_yarn(const RopeConfig& config, std::vector<float>& frequencies) {
  const double dim = static_cast<double>(config.rotary_dim);
  const double context = static_cast<double>(config.original_max_positions);
  const auto correction = [&](double turns) { return dim * std::log(context / (turns * kTwoPi)) / (2 * std::log(config.theta)); };
  double low = correction(config.beta_fast), high = correction(config.beta_slow);
  if (config.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dim - 1);
  if (low == high) high += 0.001;
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    const double original = frequencies[i];
    frequencies[i] = static_cast<float>(original / config.factor * ramp + original * (1 - ramp));
  }
}

// Llama 3: long wavelengths are divided by the factor, short ones kept, those between blended.
void blend_llama3(const RopeConfig& config, std::vector<float>& frequencies) {
  const double context = static_cast<double>(config.original_max_positions);
  const double long_wave = context / config.low_freq_factor, short_wave = context / config.high_freq_factor;
  for (float& frequency : frequencies) {
    const double wave = kTwoPi / frequency;
    if (wave > long_wave) {
      frequency = static_cast<float>(frequency / config.factor);
    } else if (wave >= short_wave) {
      const double smooth = (context / wave - config.low_freq_factor) / (config.high_freq_factor - config.low_freq_factor);
      frequency = static_cast<float>((1 - smooth) * frequency / config.factor + smooth * frequency);
    }
  }
}

constexpr std::pair<RopeConfig::Scaling, const char*> kScalingNames[] = {
    {RopeConfig::Scaling::linear, "linear"}, {RopeConfig::Scaling::dynamic, "dynamic"},
    {RopeConfig::Scaling::yarn, "yarn"},     {RopeConfig::Scaling::llama3, "llama3"},
};

}  // namespace

void read_rope_scaling(const JsonView& config, RopeConfig& rope) {
  if (!config.has("rope_scaling")) return;
  const JsonView scaling = config.object("rope_scaling");
  const std::string type = scaling.has("rope_type") ? scaling.string("rope_type") : scaling.string_or("type", "default");
  if (type == "default") return;
  const auto* known = std::find_if(std::begin(kScalingNames), std::end(kScalingNames), [&](const auto& row) { return row.second == type; });
  if (known == std::end(kScalingNames)) {
    fail("{}: key 'rope_scaling.rope_type': expected default, linear, dynamic, yarn or llama3, found '{}'", config.where(), type);
  }
  rope.scaling = known->first;
  rope.factor = scaling.number("factor");
  require(rope.factor > 0, "{}: key 'rope_scaling.factor': expected more than 0, found {}", config.where(), rope.factor);
  rope.original_max_positions = scaling.integer_or("original_max_position_embeddings", rope.max_positions);
  require(rope.original_max_positions > 0, "{}: key 'rope_scaling.original_max_position_embeddings': expected more than 0, found {}",
          config.where(), rope.original_max_positions);
  rope.attention_factor = scaling.number_or("attention_factor", 0);
  rope.beta_fast = scaling.number_or("beta_fast", 32);
  rope.beta_slow = scaling.number_or("beta_slow", 1);
  rope.truncate = scaling.boolean_or("truncate", true);
  rope.low_freq_factor = scaling.number_or("low_freq_factor", 1);
  rope.high_freq_factor = scaling.number_or("high_freq_factor", 4);
}

Json rope_scaling_json(const RopeConfig& rope) {
  if (rope.scaling == RopeConfig::Scaling::none) return nullptr;
  Json json = Json::object();
  for (const auto& [scaling, name] : kScalingNames) {
    if (scaling == rope.scaling) json["rope_type"] = name;
  }
  json["factor"] = rope.factor;
  json["original_max_position_embeddings"] = rope.original_max_positions;
  if (rope.attention_factor != 0) json["attention_factor"] = rope.attention_factor;
  if (rope.scaling == RopeConfig::Scaling::yarn) {
    json["beta_fast"] = rope.beta_fast;
    json["beta_slow"] = rope.beta_slow;
    if (!rope.truncate) json["truncate"] = false;
  }
  if (rope.scaling == RopeConfig::Scaling::llama3) {
    json["low_freq_factor"] = rope.low_freq_factor;
    json["high_freq_factor"] = rope.high_freq_factor;
  }
  return json;
}

Rope::Rope(const RopeConfig& config) : config_(config) {
  require(config.rotary_dim > 0 && config.rotary_dim % 2 == 0 && config.rotary_dim <= config.head_dim,
          "rope: expected an even number of rotated dimensions up to {}, found {}", config.head_dim, config.rotary_dim);
  require(config.theta > 1, "rope: expected theta above 1, found {}", config.theta);
  inverse_frequencies_ = frequencies(config.theta);
  if (config.scaling == RopeConfig::Scaling::yarn) {
    magnitude_ = static_cast<float>(config.attention_factor > 0 ? config.attention_factor
                                    : config.factor > 1         ? 0.1 * std::log(config.factor) + 1
                                                                : 1);
  }
}

std::vector<float> Rope::frequencies(double theta) const {
  std::vector<float> result(static_cast<size_t>(config_.rotary_dim / 2));
  for (size_t i = 0; i < result.size(); ++i) {
    result[i] = static_cast<float>(1.0 / std::pow(theta, 2.0 * static_cast<double>(i) / static_cast<double>(config_.rotary_dim)));
  }
  switch (config_.scaling) {
    case RopeConfig::Scaling::linear:
      for (float& frequency : result) frequency = static_cast<float>(frequency / config_.factor);
      break;
    case RopeConfig::Scaling::yarn: blend_yarn(config_, result); break;
    case RopeConfig::Scaling::llama3: blend_llama3(config_, result); break;
    case RopeConfig::Scaling::none:
    case RopeConfig::Scaling::dynamic: break;
  }
  return result;
}

ops::RopeTable Rope::table(const std::vector<int32_t>& positions) const {
  const int64_t rows = static_cast<int64_t>(positions.size()), half = config_.rotary_dim / 2;
  std::vector<float> scaled;
  const std::vector<float>* inverse = &inverse_frequencies_;
  if (config_.scaling == RopeConfig::Scaling::dynamic && rows > 0) {
    // The base grows with the longest context seen in this pass.
    const double length = *std::max_element(positions.begin(), positions.end()) + 1.0;
    const double context = static_cast<double>(config_.original_max_positions);
    if (length > context) {
      const double dim = static_cast<double>(config_.rotary_dim);
      scaled = frequencies(config_.theta * std::pow(config_.factor * length / context - (config_.factor - 1), dim / (dim - 2)));
      inverse = &scaled;
    }
  }
  ops::RopeTable table;
  table.head_dim = config_.head_dim;
  table.rotary_dim = config_.rotary_dim;
  table.interleaved = config_.interleaved;
  table.cos = Tensor::empty({rows, half});
  table.sin = Tensor::empty({rows, half});
  float* cos = table.cos.data<float>();
  float* sin = table.sin.data<float>();
  for (int64_t t = 0; t < rows; ++t) {
    for (int64_t i = 0; i < half; ++i) {
      const double angle = static_cast<float>(positions[static_cast<size_t>(t)]) * (*inverse)[static_cast<size_t>(i)];
      cos[t * half + i] = static_cast<float>(std::cos(angle)) * magnitude_;
      sin[t * half + i] = static_cast<float>(std::sin(angle)) * magnitude_;
    }
  }
  return table;
}

}  // namespace qkv
