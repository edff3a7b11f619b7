#include "qkv/formats/hf_directory.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "qkv/core/atomic_file.h"
#include "qkv/core/error.h"
#include "qkv/formats/content.h"
#include "qkv/formats/hf_files.h"
#include "qkv/formats/python_json.h"
#include "qkv/formats/pytorch.h"
#include "qkv/formats/safetensors.h"

namespace qkv {
namespace {

namespace fs = std::filesystem;

// By content; a file that is neither is opened as what its name says, so that the error names the defect.
std::unique_ptr<Checkpoint> open_weights(const std::string& path) {
  const auto file = MappedFile::open(path);
  const bool is_safetensors = looks_like_safetensors(file->bytes());
  if (!is_safetensors && (looks_like_pytorch(file->bytes()) || fs::path(path).extension() != ".safetensors"))
    return std::make_unique<PytorchFile>(path);
  return std::make_unique<SafetensorsFile>(path);
}

std::string join(const std::string& directory, std::string_view file_name) {
  return (fs::path(directory) / file_name).string();
}

// Whether a file belongs to the model without being its weights.
bool accompanies_weights(const fs::path& path) {
  const std::string name = path.filename().string();
  const std::string extension = path.extension().string();
  constexpr std::string_view kNames[] = {"config.json", "generation_config.json", "preprocessor_config.json",
                                         "processor_config.json", "encoder.json"};
  constexpr std::string_view kBeginnings[] = {"tokenizer", "special_tokens", "added_tokens",
                                              "vocab.",    "merges.",        "chat_template"};
  constexpr std::string_view kExtensions[] = {".model", ".tiktoken", ".jinja"};
  const auto is = [](std::string_view text) {
    return [text](std::string_view other) { return text == other; };
  };
  return std::any_of(std::begin(kNames), std::end(kNames), is(name)) ||
         std::any_of(std::begin(kExtensions), std::end(kExtensions), is(extension)) ||
         std::any_of(std::begin(kBeginnings), std::end(kBeginnings),
                     [&](std::string_view beginning) { return name.starts_with(beginning); });
}

}  // namespace

std::unique_ptr<const Json> load_config_if_present(const std::string& directory,
                                                   const std::string& file_name) {
  const std::string path = join(directory, file_name);
  if (!is_in_directory(directory, file_name)) return nullptr;
  auto config = std::make_unique<Json>(parse_python_json(read_file(path), path));
  require(config->is_object(), "[huggingface] {}: expected an object, found {}", path, config->type_name());
  return config;
}

bool HfDirectory::recognizes(const std::string& path) {
  return has_hf_weights(path);
}

HfDirectory::HfDirectory(std::string path) : Checkpoint(std::move(path)) {
  const std::string& directory = this->path();
  config_ = load_config_if_present(directory, "config.json");
  generation_config_ = load_config_if_present(directory, "generation_config.json");

  const HfWeightFiles weights = find_hf_weights(directory);
  std::vector<TensorEntry> entries;
  std::unordered_map<std::string, std::string> file_of;
  for (const auto& file : weights.files) {
    shards_.push_back(open_weights(join(directory, file)));
    for (const auto& [key, value] : shards_.back()->metadata().values()) metadata_.set(key, value);
    for (const auto& entry : shards_.back()->entries()) {
      const auto [before, is_new] = file_of.emplace(entry.name, file);
      if (!is_new)
        fail("[huggingface] {}: tensor '{}': expected in one shard, found in '{}' and '{}'", directory,
             shown(entry.name), shown(before->second), shown(file));
      entries.push_back(entry);
      homes_.push_back(shards_.back().get());
    }
  }
  for (const auto& [tensor, file] : weights.weight_map) {
    const auto found = file_of.find(tensor);
    if (found != file_of.end() && found->second == file) continue;
    fail("[huggingface] {}: tensor '{}': expected in shard '{}' by {}, found {}", directory, shown(tensor),
         shown(file), weights.index,
         found == file_of.end() ? "in no shard" : fmt::format("in '{}'", shown(found->second)));
  }
  set_entries(std::move(entries));
}

HfDirectory::~HfDirectory() = default;

std::vector<std::string> HfDirectory::file_names() const {
  std::vector<std::string> names;
  std::error_code code;
  for (const auto& item : fs::directory_iterator(path(), code)) {
    if (item.is_regular_file(code) && accompanies_weights(item.path()))
      names.push_back(item.path().filename().string());
  }
  require(!code, "[huggingface] {}: cannot list the directory: {}", path(), code.message());
  std::sort(names.begin(), names.end());
  return names;
}

std::optional<std::string> HfDirectory::file(std::string_view name) const {
  if (!is_plain_file_name(name) || !is_in_directory(path(), name)) return std::nullopt;
  return read_file(join(path(), name));
}

bool HfDirectory::has_checksums() const {
  return std::any_of(shards_.begin(), shards_.end(),
                     [](const auto& shard) { return shard->has_checksums(); });
}

std::vector<std::string> HfDirectory::verify() const {
  std::vector<std::string> defects;
  for (const auto& shard : shards_) {
    const auto found = shard->verify();
    defects.insert(defects.end(), found.begin(), found.end());
  }
  return defects;
}

Tensor HfDirectory::read_entry(size_t index) const {
  return homes_[index]->read(entries()[index].name);
}
void HfDirectory::release_entry(size_t index) const {
  homes_[index]->release(entries()[index].name);
}

}  // namespace qkv
