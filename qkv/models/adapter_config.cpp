#include "qkv/models/adapter_config.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/text/regex.h"

namespace qkv {
namespace {

constexpr const char* kAllLinear = "all-linear";

bool names(const std::string& module, const std::string& target) {
  if (module == target) return true;
  return module.size() > target.size() && module.ends_with(target) &&
         module[module.size() - target.size() - 1] == '.';
}

bool names_any(const std::string& module, const std::vector<std::string>& targets) {
  return std::any_of(targets.begin(), targets.end(),
                     [&](const std::string& target) { return names(module, target); });
}

bool matches_all(const std::string& module, const std::string& pattern) {
  const Regex regex("\\A(?:" + pattern + ")\\z", "adapter: pattern of modules");
  Regex::Scratch scratch;
  return regex.find(module, 0, scratch).has_value();
}

// The number of the module's layer, the last that is a whole part of its name; -1 if there is none.
int64_t layer_of(const std::string& module) {
  int64_t layer = -1;
  for (size_t begin = 0; begin < module.size();) {
    const size_t end = std::min(module.find('.', begin), module.size());
    const std::string part = module.substr(begin, end - begin);
    if (!part.empty() && part.size() < 9 && part.find_first_not_of("0123456789") == std::string::npos) {
      layer = std::stoll(part);
      break;
    }
    begin = end + 1;
  }
  return layer;
}

template <typename Value>
Value patterned(const std::string& module, const std::vector<std::pair<std::string, Value>>& patterns,
                Value fallback) {
  for (const auto& [pattern, value] : patterns) {
    if (matches_all(module, "(?:.*\\.)?(?:" + pattern + ")")) return value;
  }
  return fallback;
}

// A list of names, or one string.
void read_targets(const JsonView& view, std::string_view key, std::vector<std::string>& list,
                  std::string* pattern) {
  const Json* value = view.find(key);
  if (value == nullptr) return;
  if (!value->is_string()) {
    list = view.strings_or_empty(key);
  } else if (const std::string text = view.string(key); text == kAllLinear) {
    list = {text};
  } else if (pattern != nullptr) {
    *pattern = text;
  } else {
    list = {text};
  }
}

template <typename Value>
void read_patterns(const JsonView& view, std::string_view key,
                   std::vector<std::pair<std::string, Value>>& patterns) {
  const Json* value = view.find(key);
  if (value == nullptr) return;
  require(value->is_object(), "{}: key '{}': expected an object, found {}", view.where(), key,
          value->type_name());
  for (const auto& [pattern, number] : value->items()) {
    require(number.is_number(), "{}: key '{}.{}': expected a number, found {}", view.where(), key, pattern,
            number.type_name());
    patterns.emplace_back(pattern, number.template get<Value>());
  }
}

// Refuses a key that would change the result and that is not implemented, unless it is absent or as harmless
// as `harmless`.
void refuse(const JsonView& view, std::string_view key, const std::vector<Json>& harmless,
            const char* expected) {
  const Json* value = view.find(key);
  if (value == nullptr || std::find(harmless.begin(), harmless.end(), *value) != harmless.end()) return;
  fail("{}: key '{}': expected {}, found {}", view.where(), key, expected, dump_json(*value));
}

}  // namespace

bool AdapterConfig::is_target(const std::string& module) const {
  if (!layers.empty() && std::find(layers.begin(), layers.end(), layer_of(module)) == layers.end())
    return false;
  if (!target_pattern.empty()) return matches_all(module, target_pattern);
  const bool all = std::find(targets.begin(), targets.end(), kAllLinear) != targets.end();
  return all ? layer_of(module) >= 0 : names_any(module, targets);
}

bool AdapterConfig::is_feedforward(const std::string& module) const {
  return names_any(module, feedforward);
}

bool AdapterConfig::is_saved(const std::string& module) const {
  return names_any(module, modules_to_save);
}

int64_t AdapterConfig::rank_of(const std::string& module) const {
  return patterned(module, rank_pattern, rank);
}

double AdapterConfig::scaling_of(const std::string& module) const {
  const auto r = static_cast<double>(rank_of(module));
  return patterned(module, alpha_pattern, alpha) / (rank_stabilized ? std::sqrt(r) : r);
}

AdapterConfig read_adapter_config(const Json& json, const std::string& where) {
  const JsonView view(json, where);
  AdapterConfig config;
  const std::string kind = view.string("peft_type");
  if (kind == "LORA") {
    config.kind = AdapterConfig::Kind::lora;
    config.alpha = view.number("lora_alpha");
    config.rank_stabilized = view.boolean_or("use_rslora", false);
    config.decomposed = view.boolean_or("use_dora", false);
    config.dropout = view.number_or("lora_dropout", 0);
    read_patterns(view, "rank_pattern", config.rank_pattern);
    read_patterns(view, "alpha_pattern", config.alpha_pattern);
    refuse(view, "lora_bias", {false}, "false");
    refuse(view, "layer_replication", {Json::array()}, "null");
    refuse(view, "use_qalora", {false}, "false");
  } else if (kind == "IA3") {
    config.kind = AdapterConfig::Kind::ia3;
    read_targets(view, "feedforward_modules", config.feedforward, nullptr);
  } else if (kind == "VERA") {
    config.kind = AdapterConfig::Kind::vera;
    config.dropout = view.number_or("vera_dropout", 0);
    config.initial_d = view.number_or("d_initial", 0.1);
    refuse(view, "save_projection", {true}, "true (the random matrices must be in the file)");
  } else {
    fail("{}: key 'peft_type': expected LORA, IA3 or VERA, found '{}'", where, kind);
  }
  if (config.kind != AdapterConfig::Kind::ia3) {
    config.rank = view.integer("r");
    require(config.rank > 0, "{}: key 'r': expected a rank above 0, found {}", where, config.rank);
  }
  for (const auto& [pattern, rank] : config.rank_pattern) {
    require(rank > 0, "{}: key 'rank_pattern.{}': expected a rank above 0, found {}", where, pattern, rank);
  }
  read_targets(view, "target_modules", config.targets, &config.target_pattern);
  require(!config.targets.empty() || !config.target_pattern.empty(),
          "{}: key 'target_modules': expected names of modules, found none", where);
  if (const Json* layers = view.find("layers_to_transform")) {
    for (const Json& layer : layers->is_array() ? *layers : Json::array({*layers})) {
      require(layer.is_number_integer(),
              "{}: key 'layers_to_transform': expected numbers of layers, found {}", where, dump_json(layer));
      config.layers.push_back(layer.get<int64_t>());
    }
  }
  config.base_model = view.string_or("base_model_name_or_path", "");
  refuse(view, "bias", {"none"}, "\"none\" (biases stay the base's)");
  config.modules_to_save = view.strings_or_empty("modules_to_save");
  refuse(view, "exclude_modules", {Json::array()}, "null");
  refuse(view, "trainable_token_indices", {Json::array()}, "null");
  refuse(view, "target_parameters", {Json::array()}, "null");
  return config;
}

Json peft_config(const AdapterConfig& config, bool transposed) {
  Json json;
  json["auto_mapping"] = nullptr;
  json["base_model_name_or_path"] = config.base_model;
  json["fan_in_fan_out"] = transposed;
  json["inference_mode"] = true;
  json["modules_to_save"] = config.modules_to_save.empty() ? Json(nullptr) : Json(config.modules_to_save);
  json["revision"] = nullptr;
  json["task_type"] = config.is_saved("score") ? "SEQ_CLS" : "CAUSAL_LM";
  json["target_modules"] = config.target_pattern.empty() ? Json(config.targets) : Json(config.target_pattern);
  if (config.targets == std::vector<std::string>{kAllLinear}) json["target_modules"] = kAllLinear;
  json["layers_to_transform"] = config.layers.empty() ? Json(nullptr) : Json(config.layers);
  json["layers_pattern"] = nullptr;
  switch (config.kind) {
    case AdapterConfig::Kind::lora:
      json["peft_type"] = "LORA";
      json["r"] = config.rank;
      json["lora_alpha"] = config.alpha;
      if (config.alpha == std::floor(config.alpha)) json["lora_alpha"] = static_cast<int64_t>(config.alpha);
      json["lora_dropout"] = config.dropout;
      json["use_rslora"] = config.rank_stabilized;
      json["use_dora"] = config.decomposed;
      json["bias"] = "none";
      json["init_lora_weights"] = true;
      json["rank_pattern"] = Json::object();
      for (const auto& [pattern, rank] : config.rank_pattern) json["rank_pattern"][pattern] = rank;
      json["alpha_pattern"] = Json::object();
      for (const auto& [pattern, alpha] : config.alpha_pattern) json["alpha_pattern"][pattern] = alpha;
      break;
    case AdapterConfig::Kind::ia3:
      json["peft_type"] = "IA3";
      json["feedforward_modules"] = config.feedforward;
      json["init_ia3_weights"] = true;
      json.erase("layers_to_transform");
      json.erase("layers_pattern");
      break;
    case AdapterConfig::Kind::vera:
      json["peft_type"] = "VERA";
      json["r"] = config.rank;
      json["vera_dropout"] = config.dropout;
      json["d_initial"] = config.initial_d;
      json["save_projection"] = true;
      json["projection_prng_key"] = 0;
      json["bias"] = "none";
      break;
  }
  return json;
}

}  // namespace qkv
