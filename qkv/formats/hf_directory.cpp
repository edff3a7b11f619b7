#include "qkv/formats/hf_directory.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <unordered_map>

#include "qkv/core/atomic_file.h"
#include "qkv/core/error.h"
#include "qkv/formats/content.h"
#include "qkv/formats/hf_files.h"
#include "qkv/formats/json_events.h"
#include "qkv/formats/python_json.h"

namespace qkv {
namespace {

namespace fs = std::filesystem;

class WeightMapEvents final : public JsonEvents {
 public:
  explicit WeightMapEvents(std::string_view where) : where_(where) {}

  void open(const JsonPath& path, bool is_list) override {
    const std::string_view found = is_list ? "a list" : "an object";
    if (path.empty()) require(!is_list, "[huggingface] {}: expected an object, found a list", where_);
    if (path.empty() || path[0] != "weight_map") return;
    if (path.size() > 1) wrong_file(path[1], found);
    require(!is_list, "[huggingface] {}: weight_map: expected an object, found a list", where_);
    require(!seen_, "[huggingface] {}: weight_map: expected once, found twice", where_);
    seen_ = true;
  }
  void close(const JsonPath&, bool) override {}
  void scalar(const JsonPath& path, JsonScalar value) override {
    require(!path.empty(), "[huggingface] {}: expected an object, found {}", where_, describe(value));
    if (path[0] != "weight_map") return;
    require(path.size() > 1, "[huggingface] {}: weight_map: expected an object, found {}", where_,
            describe(value));
    const std::string* file = std::get_if<std::string>(&value);
    if (file == nullptr) wrong_file(path[1], describe(value));
    if (!is_plain_file_name(*file)) wrong_file(path[1], fmt::format("'{}'", shown(*file)));
    if (!map_.emplace(path[1], *file).second) {
      fail("[huggingface] {}: tensor '{}': expected once in weight_map, found twice", where_, shown(path[1]));
    }
  }

  std::map<std::string, std::string> take() {
    require(seen_, "[huggingface] {}: expected the key weight_map, found none", where_);
    require(!map_.empty(), "[huggingface] {}: weight_map: expected at least one tensor, found none", where_);
    return std::move(map_);
  }

 private:
  [[noreturn]] void wrong_file(std::string_view tensor, std::string_view found) const {
    fail("[huggingface] {}: tensor '{}': expected the name of a file in the same directory, found {}", where_,
         shown(tensor), found);
  }

  std::string where_;
  bool seen_ = false;
  std::map<std::string, std::string> map_;
};

std::string join(const std::string& directory, std::string_view file_name) {
  return (fs::path(directory) / file_name).string();
}

// A name that the system cannot even look up (too long, say) is a file that does not exist.
bool is_there(const std::string& directory, std::string_view file_name) {
  std::error_code ignored;
  return fs::exists(join(directory, file_name), ignored);
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
  if (!is_there(directory, file_name)) return nullptr;
  auto config = std::make_unique<Json>(parse_python_json(read_file(path), path));
  require(config->is_object(), "[huggingface] {}: expected an object, found {}", path, config->type_name());
  return config;
}

std::map<std::string, std::string> parse_weight_map(std::string_view index, std::string_view where) {
  WeightMapEvents events(where);
  scan_json(index, fmt::format("[huggingface] {}", where), events);
  return events.take();
}

bool HfDirectory::recognizes(const std::string& path) {
  return is_there(path, kHfWeights) || is_there(path, kHfIndex);
}

HfDirectory::HfDirectory(std::string path) : Checkpoint(std::move(path)) {
  const std::string& directory = this->path();
  config_ = load_config_if_present(directory, "config.json");
  generation_config_ = load_config_if_present(directory, "generation_config.json");

  std::map<std::string, std::string> weight_map;
  std::set<std::string> files = {std::string(kHfWeights)};
  const std::string index_path = join(directory, kHfIndex);
  if (!is_there(directory, kHfWeights)) {
    require(is_there(directory, kHfIndex), "[huggingface] {}: expected {} or {}, found neither", directory,
            kHfWeights, kHfIndex);
    weight_map = parse_weight_map(read_file(index_path), index_path);
    files.clear();
    for (const auto& [tensor, file] : weight_map) {
      if (!files.insert(file).second) continue;
      require(is_there(directory, file),
              "[huggingface] {}: shard '{}': expected by {} for tensor '{}', found no such file", directory,
              shown(file), kHfIndex, shown(tensor));
    }
  }

  std::vector<TensorEntry> entries;
  std::unordered_map<std::string, std::string> file_of;
  for (const auto& file : files) {
    shards_.push_back(std::make_unique<SafetensorsFile>(join(directory, file)));
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
  for (const auto& [tensor, file] : weight_map) {
    const auto found = file_of.find(tensor);
    if (found != file_of.end() && found->second == file) continue;
    fail("[huggingface] {}: tensor '{}': expected in shard '{}' by {}, found {}", directory, shown(tensor),
         shown(file), kHfIndex,
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
  if (!is_plain_file_name(name) || !is_there(path(), name)) return std::nullopt;
  return read_file(join(path(), name));
}

Tensor HfDirectory::read_entry(size_t index) const {
  return homes_[index]->read(entries()[index].name);
}
void HfDirectory::release_entry(size_t index) const {
  homes_[index]->release(entries()[index].name);
}

}  // namespace qkv
