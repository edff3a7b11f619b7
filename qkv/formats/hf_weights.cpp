// Writing the weights of a Hugging Face directory: which tensor goes into which shard, the shards, the index.
#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>

#include "qkv/core/atomic_file.h"
#include "qkv/core/error.h"
#include "qkv/formats/content.h"
#include "qkv/formats/hf_directory.h"
#include "qkv/formats/hf_files.h"
#include "qkv/formats/safetensors.h"
#include "qkv/formats/tensor_sequence.h"

namespace qkv {
namespace {

namespace fs = std::filesystem;

// Weights from before that would contradict or shadow the ones just written.
void remove_other_weights(const std::string& directory, const std::set<std::string>& written) {
  static const std::regex pattern(R"(model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json)");
  std::error_code code;
  std::vector<fs::path> stale;
  for (const auto& item : fs::directory_iterator(directory, code)) {
    const std::string file_name = item.path().filename().string();
    if (std::regex_match(file_name, pattern) && !written.contains(file_name)) stale.push_back(item.path());
  }
  require(!code, "[huggingface] {}: cannot list the directory: {}", directory, code.message());
  for (const auto& path : stale) {
    fs::remove(path, code);
    require(!code, "[huggingface] {}: cannot remove the weights from before: {}", path.string(),
            code.message());
  }
}

}  // namespace

void write_hf_weights(const std::string& directory, const std::vector<TensorEntry>& entries,
                      TensorProvider provider, uint64_t max_shard_bytes) {
  std::set<std::string_view> names;
  for (const auto& entry : entries) {
    if (!names.insert(entry.name).second)
      fail("[huggingface] {}: tensor '{}': expected once, found twice", directory, shown(entry.name));
  }
  const auto shards = split_by_bytes(entries, max_shard_bytes);
  std::set<std::string> written;
  std::map<std::string, std::string> file_of;
  uint64_t total = 0;
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string file_name = shards.size() == 1
                                      ? std::string(kHfWeights)
                                      : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    SafetensorsWriter writer((fs::path(directory) / file_name).string(), shards[i]);
    for (const auto& entry : writer.entries()) {
      writer.write(entry.name, provider(entry));
      file_of.emplace(entry.name, file_name);
      total += entry.bytes;
    }
    writer.finish();
    written.insert(file_name);
  }
  if (shards.size() > 1) {
    nlohmann::json index;  // sorted keys, in logarithmic time
    index["metadata"]["total_size"] = total;
    index["weight_map"] = file_of;
    write_file((fs::path(directory) / kHfIndex).string(), index.dump(2) + "\n");
    written.insert(std::string(kHfIndex));
  }
  remove_other_weights(directory, written);
}

}  // namespace qkv
