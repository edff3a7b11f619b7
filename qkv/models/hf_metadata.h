// What files that are no Hugging Face directory keep of one, so that it can be written again bit for bit:
// metadata under "qkv.hf.".
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "qkv/core/metadata.h"
#include "qkv/formats/checkpoint.h"

namespace qkv {

// The text of config.json and of generation_config.json.
constexpr std::string_view kHfConfig = "qkv.hf.config";
constexpr std::string_view kHfGenerationConfig = "qkv.hf.generation_config";
// "qkv.hf.file.<name>": another file, a tokenizer's usually. Text as a string, anything else as a list of u8.
constexpr std::string_view kHfFile = "qkv.hf.file.";
// A JSON object, tensor -> type: the types of the tensors whose values lie in the file in another type.
constexpr std::string_view kHfDtypes = "qkv.hf.dtypes";
// "qkv.hf.bits.<tensor>": a list of u8, the bytes of a tensor whose values lie in the file transformed, or of
// one that says nothing about the model's outputs and has no place in the file (BERT's pooler).
constexpr std::string_view kHfBits = "qkv.hf.bits.";
// A JSON object, tensor -> tensor: copies that were stored beside what they are copies of.
constexpr std::string_view kHfCopies = "qkv.hf.copies";
// A JSON object {"removed": prefix, "added": prefix}: how the tensors' names differed from the architecture's
// own.
constexpr std::string_view kHfPrefix = "qkv.hf.prefix";

using HfFiles = std::map<std::string, std::string>;

// The files beside a checkpoint's weights, from wherever it has them: its directory, itself, its metadata.
HfFiles hf_files(const Checkpoint& checkpoint);
// generation_config.json; null if there is none.
std::unique_ptr<Json> generation_config_of(const Checkpoint& checkpoint);
// Says in a config.json what type the weights are stored in: f32, bf16 or f16.
void set_config_type(Json& config, DType type);
// Keeps them in the metadata.
void keep_hf_files(const HfFiles& files, Metadata& metadata);

}  // namespace qkv
