#include "qkv/nn/rope.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/core/parallel.h"

namespace qkv {
namespace {

constexpr double kTwoPi = 6.283185307179586476925;

// YaRN: blends interpolated and original frequencies over the dimensions whose wavelengths turn
// beta_slow..beta_fast times within the original context.
void blend_yarn(const RopeConfig& config, std::vector<float>& frequencies) {
  const double dim = static_cast<double>(config.rotary_dim);
  const double context = static_cast<double>(config.original_max_positions);
  const auto correction = [&](double turns) {
    return dim * std::log(context / (turns * kTwoPi)) / (2 * std::log(config.theta));
  };
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
      const double smooth =
          (context / wave - config.low_freq_factor) / (config.high_freq_factor - config.low_freq_factor);
      frequency = static_cast<float>((1 - smooth) * frequency / config.factor + smooth * frequency);
    }
  }
}

// The base that stretches all wavelengths so that the longest grows by `stretch`.
double ntk_theta(const RopeConfig& config, double stretch) {
  const double dim = static_cast<double>(config.rotary_dim);
  return config.theta * std::pow(stretch, dim / (dim - 2));
}

constexpr std::pair<const char*, RopeConfig::Scaling> kScalingNames[] = {
    {"default", RopeConfig::Scaling::none},      {"linear", RopeConfig::Scaling::linear},
    {"ntk", RopeConfig::Scaling::ntk},           {"dynamic", RopeConfig::Scaling::dynamic},
    {"yarn", RopeConfig::Scaling::yarn},         {"llama3", RopeConfig::Scaling::llama3},
    {"longrope", RopeConfig::Scaling::longrope}, {"su", RopeConfig::Scaling::longrope},
};

std::vector<double> factors(const JsonView& scaling, const char* key, const RopeConfig& rope) {
  const Json* list = scaling.find(key);
  require(list != nullptr && list->is_array() && static_cast<int64_t>(list->size()) == rope.rotary_dim / 2,
          "{}: key 'rope_scaling.{}': expected a list of {} numbers", scaling.where(), key,
          rope.rotary_dim / 2);
  std::vector<double> values;
  for (const Json& value : *list) {
    require(value.is_number() && value.get<double>() > 0,
            "{}: key 'rope_scaling.{}': expected numbers above 0, found {}", scaling.where(), key,
            dump_json(value));
    values.push_back(value.get<double>());
  }
  return values;
}

}  // namespace

double yarn_mscale(double factor, double mscale) {
  return factor > 1 ? 0.1 * mscale * std::log(factor) + 1 : 1;
}

void read_rope_scaling(const JsonView& config, RopeConfig& rope) {
  if (!config.has("rope_scaling")) return;
  const JsonView scaling = config.object("rope_scaling");
  const std::string type =
      scaling.has("rope_type") ? scaling.string("rope_type") : scaling.string_or("type", "default");
  require(type != "mrope" && !scaling.has("mrope_section"),
          "{}: key 'rope_scaling.rope_type': positions in several dimensions (mrope) are not implemented",
          config.where());
  const auto* known = std::find_if(std::begin(kScalingNames), std::end(kScalingNames),
                                   [&](const auto& row) { return row.first == type; });
  if (known == std::end(kScalingNames)) {
    fail(
        "{}: key 'rope_scaling.rope_type': expected default, linear, ntk, dynamic, yarn, llama3 or longrope, "
        "found '{}'",
        config.where(), type);
  }
  rope.scaling = known->second;
  if (rope.scaling == RopeConfig::Scaling::none) return;
  rope.original_max_positions =
      scaling.integer_or("original_max_position_embeddings",
                         config.integer_or("original_max_position_embeddings", rope.max_positions));
  require(rope.original_max_positions > 1,
          "{}: key 'rope_scaling.original_max_position_embeddings': expected more than 1, found {}",
          config.where(), rope.original_max_positions);
  rope.attention_factor = scaling.number_or("attention_factor", 0);
  if (rope.scaling == RopeConfig::Scaling::longrope) {
    rope.short_factors = factors(scaling, "short_factor", rope);
    rope.long_factors = factors(scaling, "long_factor", rope);
    rope.long_mscale = scaling.number_or("long_mscale", 0);
    rope.short_mscale = scaling.number_or("short_mscale", rope.long_mscale);
    rope.factor = static_cast<double>(rope.max_positions) / static_cast<double>(rope.original_max_positions);
    if (rope.max_positions == rope.original_max_positions) rope.factor = scaling.number_or("factor", 1);
    return;
  }
  rope.factor = scaling.number("factor");
  require(rope.factor > 0, "{}: key 'rope_scaling.factor': expected more than 0, found {}", config.where(),
          rope.factor);
  rope.beta_fast = scaling.number_or("beta_fast", 32);
  rope.beta_slow = scaling.number_or("beta_slow", 1);
  rope.mscale = scaling.number_or("mscale", 0);
  rope.mscale_all_dim = scaling.number_or("mscale_all_dim", 0);
  rope.truncate = scaling.boolean_or("truncate", true);
  rope.low_freq_factor = scaling.number_or("low_freq_factor", 1);
  rope.high_freq_factor = scaling.number_or("high_freq_factor", 4);
}

Rope::Rope(const RopeConfig& config) : config_(config) {
  require(config.rotary_dim > 0 && config.rotary_dim % 2 == 0 && config.rotary_dim <= config.head_dim,
          "rope: expected an even number of rotated dimensions up to {}, found {}", config.head_dim,
          config.rotary_dim);
  require(config.theta > 1, "rope: expected theta above 1, found {}", config.theta);
  frequencies_ = frequencies(0);
}

bool Rope::depends_on_length() const {
  return config_.scaling == RopeConfig::Scaling::dynamic || config_.scaling == RopeConfig::Scaling::longrope;
}

std::vector<float> Rope::frequencies(int64_t length) const {
  const double context = static_cast<double>(config_.original_max_positions);
  const bool longer = length > config_.original_max_positions;
  double theta = config_.theta;
  if (config_.scaling == RopeConfig::Scaling::ntk) theta = ntk_theta(config_, config_.factor);
  if (config_.scaling == RopeConfig::Scaling::dynamic && longer) {
    theta = ntk_theta(config_, config_.factor * static_cast<double>(length) / context - (config_.factor - 1));
  }
  std::vector<float> result(static_cast<size_t>(config_.rotary_dim / 2));
  for (size_t i = 0; i < result.size(); ++i) {
    double wave = std::pow(theta, 2.0 * static_cast<double>(i) / static_cast<double>(config_.rotary_dim));
    if (config_.scaling == RopeConfig::Scaling::longrope)
      wave *= (longer ? config_.long_factors : config_.short_factors).at(i);
    result[i] = static_cast<float>(1.0 / wave);
    if (config_.scaling == RopeConfig::Scaling::linear)
      result[i] = static_cast<float>(result[i] / config_.factor);
  }
  if (config_.scaling == RopeConfig::Scaling::yarn) blend_yarn(config_, result);
  if (config_.scaling == RopeConfig::Scaling::llama3) blend_llama3(config_, result);
  return result;
}

float Rope::magnitude(int64_t length) const {
  if (config_.attention_factor > 0) return static_cast<float>(config_.attention_factor);
  if (config_.scaling == RopeConfig::Scaling::yarn) {
    const bool ratio = config_.mscale != 0 && config_.mscale_all_dim != 0;
    return static_cast<float>(yarn_mscale(config_.factor, ratio ? config_.mscale : 1) /
                              (ratio ? yarn_mscale(config_.factor, config_.mscale_all_dim) : 1));
  }
  if (config_.scaling == RopeConfig::Scaling::longrope) {
    if (config_.long_mscale > 0) {
      return static_cast<float>(length > config_.original_max_positions ? config_.long_mscale
                                                                        : config_.short_mscale);
    }
    const double context = static_cast<double>(config_.original_max_positions);
    return config_.factor > 1
               ? static_cast<float>(std::sqrt(1 + std::log(config_.factor) / std::log(context)))
               : 1;
  }
  return 1;
}

ops::RopeTable Rope::table(const std::vector<int32_t>& positions,
                           const ops::PackedSequences& sequences) const {
  const int64_t rows = static_cast<int64_t>(positions.size()), half = config_.rotary_dim / 2;
  ops::RopeTable table;
  table.head_dim = config_.head_dim;
  table.rotary_dim = config_.rotary_dim;
  table.interleaved = config_.interleaved;
  table.cos = Tensor::empty({rows, half});
  table.sin = Tensor::empty({rows, half});
  float* cos = table.cos.data<float>();
  float* sin = table.sin.data<float>();
  const auto fill = [&](int64_t begin, int64_t end, const std::vector<float>& frequencies, float magnitude) {
    parallel_for(end - begin, 64, [&](int64_t first, int64_t last) {
      for (int64_t t = begin + first; t < begin + last; ++t) {
        for (int64_t i = 0; i < half; ++i) {
          const double angle =
              static_cast<float>(positions[static_cast<size_t>(t)]) * frequencies[static_cast<size_t>(i)];
          cos[t * half + i] = static_cast<float>(std::cos(angle)) * magnitude;
          sin[t * half + i] = static_cast<float>(std::sin(angle)) * magnitude;
        }
      }
    });
  };
  if (!depends_on_length()) {
    fill(0, rows, frequencies_, magnitude(0));
    return table;
  }
  for (size_t s = 0; s + 1 < sequences.offsets.size(); ++s) {
    const int64_t begin = sequences.offsets[s], end = sequences.offsets[s + 1];
    if (begin == end) continue;
    const int64_t length = *std::max_element(positions.begin() + begin, positions.begin() + end) + int64_t{1};
    fill(begin, end, length > config_.original_max_positions ? frequencies(length) : frequencies_,
         magnitude(length));
  }
  return table;
}

}  // namespace qkv
