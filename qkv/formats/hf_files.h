// The weight files of a Hugging Face directory: their names, and which of them a directory uses.
#pragma once

#include <map>
#include <set>
#include <string>
#include <string_view>

namespace qkv {

constexpr std::string_view kHfWeights = "model.safetensors";
constexpr std::string_view kHfIndex = "model.safetensors.index.json";
constexpr std::string_view kHfPytorchWeights = "pytorch_model.bin";
constexpr std::string_view kHfPytorchIndex = "pytorch_model.bin.index.json";

struct HfWeightFiles {
  std::set<std::string> files;
  // Of the index, if there is one: its name, and tensor -> file.
  std::string index = {};
  std::map<std::string, std::string> weight_map = {};
};

// True if the directory has weight files of the usual names or, beside a config.json, of any.
bool has_hf_weights(const std::string& directory);

// Which files hold the weights: the first of the four above that is there; otherwise the only safetensors or
// PyTorch file, or the complete set of shards (x-00001-of-00003.bin) that lacks its index. Throws Error
// `[huggingface] <directory>: ...` for a missing shard, and for a choice that is not clear, naming the files.
HfWeightFiles find_hf_weights(const std::string& directory);

// The weight_map of an index file: tensor name -> shard file name. Throws Error `[huggingface] <where>: ...`
// for anything that is not that, for a duplicate tensor, and for a shard name that is no plain file name.
std::map<std::string, std::string> parse_weight_map(std::string_view index, std::string_view where);

// True if the file exists. A name that the system cannot even look up (too long, say) does not.
bool is_in_directory(const std::string& directory, std::string_view file_name);

}  // namespace qkv
