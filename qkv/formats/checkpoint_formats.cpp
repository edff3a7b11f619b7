#include "qkv/formats/checkpoint_formats.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "qkv/formats/content.h"
#include "qkv/formats/hf_directory.h"
#include "qkv/formats/safetensors.h"

namespace qkv {
namespace {

std::unique_ptr<Checkpoint> open_safetensors(const std::string& path) {
  auto checkpoint = std::make_unique<SafetensorsFile>(path);
  const std::string directory = std::filesystem::path(path).parent_path().string();
  checkpoint->attach_configs(load_config_if_present(directory, "config.json"),
                             load_config_if_present(directory, "generation_config.json"));
  return checkpoint;
}

constexpr CheckpointFormat kFormats[] = {
    {"a .safetensors file", ".safetensors", looks_like_safetensors, open_safetensors},
};

}  // namespace

std::span<const CheckpointFormat> checkpoint_formats() {
  return kFormats;
}

}  // namespace qkv
