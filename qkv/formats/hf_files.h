// The names of a Hugging Face directory's weight files.
#pragma once

#include <string_view>

namespace qkv {

constexpr std::string_view kHfWeights = "model.safetensors";
constexpr std::string_view kHfIndex = "model.safetensors.index.json";

}  // namespace qkv
