#include "qkv/formats/checkpoint_formats.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "qkv/formats/content.h"
#include "qkv/formats/gguf.h"
#include "qkv/formats/hf_directory.h"
#include "qkv/formats/llama2c.h"
#include "qkv/formats/pytorch.h"
#include "qkv/formats/qkv_file.h"
#include "qkv/formats/safetensors.h"

namespace qkv {
namespace {

// A file of weights alone takes the configurations beside it.
template <typename File>
std::unique_ptr<Checkpoint> open_with_configs(const std::string& path) {
  auto checkpoint = std::make_unique<File>(path);
  const std::string directory = std::filesystem::path(path).parent_path().string();
  checkpoint->attach_configs(load_config_if_present(directory, "config.json"),
                             load_config_if_present(directory, "generation_config.json"));
  return checkpoint;
}

template <typename Format>
std::unique_ptr<Checkpoint> open_as(const std::string& path) {
  return std::make_unique<Format>(path);
}

constexpr CheckpointFormat kFormats[] = {
    {"a .qkv file", ".qkv", looks_like_qkv, open_as<QkvFile>},
    {"a .gguf file", ".gguf", looks_like_gguf, open_as<GgufFile>},
    {"a .bin file of llama2.c", "", looks_like_llama2c, open_as<Llama2cFile>},
    {"a .safetensors file", ".safetensors", looks_like_safetensors, open_with_configs<SafetensorsFile>},
    {"a PyTorch .pt, .pth or .bin file", ".pt", looks_like_pytorch, open_with_configs<PytorchFile>},
};

}  // namespace

std::span<const CheckpointFormat> checkpoint_formats() {
  return kFormats;
}

}  // namespace qkv
