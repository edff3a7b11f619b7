// What files that are no Hugging Face directory keep of one, so that it can be written again bit for bit:
// metadata under "qkv.hf.".
#pragma once

#include <string_view>

namespace qkv {

constexpr std::string_view kHfConfig = "qkv.hf.config";                       // the text of config.json
constexpr std::string_view kHfGenerationConfig = "qkv.hf.generation_config";  // of generation_config.json
// The types of the Hugging Face tensors that the file's own types do not say: a JSON object, tensor name ->
// type name.
constexpr std::string_view kHfDtypes = "qkv.hf.dtypes";
// "qkv.hf.bits.<tensor>": the bytes of a Hugging Face tensor that this file holds with its values
// transformed.
constexpr std::string_view kHfBits = "qkv.hf.bits.";
// "qkv.hf.file.<name>": the text of a tokenizer file.
constexpr std::string_view kHfFile = "qkv.hf.file.";

}  // namespace qkv
