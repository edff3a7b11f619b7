#include "qkv/models/hf_metadata.h"

#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/core/utf8.h"
#include "qkv/formats/python_json.h"

namespace qkv {
namespace {

constexpr std::string_view kConfigFile = "config.json";
constexpr std::string_view kGenerationConfigFile = "generation_config.json";

std::string key_of(const std::string& file_name) {
  if (file_name == kConfigFile) return std::string(kHfConfig);
  if (file_name == kGenerationConfigFile) return std::string(kHfGenerationConfig);
  return std::string(kHfFile) + file_name;
}

}  // namespace

HfFiles hf_files(const Checkpoint& checkpoint) {
  HfFiles files;
  for (const auto& [key, value] : checkpoint.metadata().values()) {
    std::string content;
    if (const auto* text = std::get_if<std::string>(&value)) {
      content = *text;
    } else if (const auto* bytes = std::get_if<std::vector<uint8_t>>(&value)) {
      content.assign(bytes->begin(), bytes->end());
    } else {
      continue;
    }
    if (key == kHfConfig) files[std::string(kConfigFile)] = content;
    if (key == kHfGenerationConfig) files[std::string(kGenerationConfigFile)] = content;
    if (key.starts_with(kHfFile)) files[key.substr(kHfFile.size())] = content;
  }
  for (const auto& name : checkpoint.file_names()) {
    if (auto content = checkpoint.file(name)) files[name] = std::move(*content);
  }
  const auto add = [&](std::string_view name, const Json* json) {
    if (json != nullptr) files.emplace(std::string(name), dump_python_json(*json, 2) + "\n");
  };
  add(kConfigFile, checkpoint.config());
  add(kGenerationConfigFile, checkpoint.generation_config());
  return files;
}

std::unique_ptr<Json> generation_config_of(const Checkpoint& checkpoint) {
  if (checkpoint.generation_config() != nullptr)
    return std::make_unique<Json>(*checkpoint.generation_config());
  if (!checkpoint.metadata().has(kHfGenerationConfig)) return nullptr;
  return std::make_unique<Json>(
      parse_python_json(checkpoint.metadata().string(kHfGenerationConfig),
                        fmt::format("{}: {}", checkpoint.path(), kHfGenerationConfig)));
}

void set_config_type(Json& config, DType type) {
  const char* key = config.contains("dtype") && !config.contains("torch_dtype") ? "dtype" : "torch_dtype";
  config[key] = type == DType::f32 ? "float32" : type == DType::bf16 ? "bfloat16" : "float16";
}

void keep_hf_files(const HfFiles& files, Metadata& metadata) {
  for (const auto& [name, content] : files) {
    if (!first_invalid_utf8(content)) {
      metadata.set(key_of(name), content);
    } else {
      metadata.set(key_of(name), std::vector<uint8_t>(content.begin(), content.end()));
    }
  }
}

}  // namespace qkv
