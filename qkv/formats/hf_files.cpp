#include "qkv/formats/hf_files.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <regex>
#include <vector>

#include "qkv/core/atomic_file.h"
#include "qkv/core/error.h"
#include "qkv/formats/content.h"
#include "qkv/formats/json_events.h"

namespace qkv {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 4> kUsualNames = {kHfWeights, kHfIndex, kHfPytorchWeights,
                                                         kHfPytorchIndex};

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

// Files that training leaves beside the weights.
bool is_no_weights(std::string_view name) {
  constexpr std::array<std::string_view, 7> kStems = {
      "training_args", "optimizer", "scheduler", "rng_state", "scaler", "adapter", "random_states"};
  return std::any_of(kStems.begin(), kStems.end(),
                     [&](std::string_view stem) { return name.starts_with(stem); });
}

// Safetensors files, or, if there are none, PyTorch's; sorted.
std::vector<std::string> weight_files(const std::string& directory) {
  std::vector<std::string> safetensors;
  std::vector<std::string> pytorch;
  std::error_code code;
  for (const auto& item : fs::directory_iterator(directory, code)) {
    const std::string name = item.path().filename().string();
    const std::string extension = item.path().extension().string();
    if (is_no_weights(name) || !item.is_regular_file(code)) continue;
    if (extension == ".safetensors") safetensors.push_back(name);
    if (extension == ".bin" || extension == ".pt" || extension == ".pth") pytorch.push_back(name);
  }
  std::vector<std::string>& found = safetensors.empty() ? pytorch : safetensors;
  std::sort(found.begin(), found.end());
  return found;
}

// True if the files are x-00001-of-0000N, ..., x-0000N-of-0000N.
bool are_all_shards(const std::vector<std::string>& files) {
  static const std::regex pattern(R"((.*)-(\d{5})-of-(\d{5})\.\w+)");
  std::string stem;
  for (size_t i = 0; i < files.size(); ++i) {
    std::smatch match;
    if (!std::regex_match(files[i], match, pattern)) return false;
    if (i == 0) stem = match[1];
    if (match[1] != stem || match[2] != fmt::format("{:05}", i + 1) ||
        match[3] != fmt::format("{:05}", files.size()))
      return false;
  }
  return true;
}

HfWeightFiles read_index(const std::string& directory, std::string_view index) {
  const std::string path = (fs::path(directory) / index).string();
  HfWeightFiles result;
  result.index = index;
  result.weight_map = parse_weight_map(read_file(path), path);
  for (const auto& [tensor, file] : result.weight_map) {
    if (!result.files.insert(file).second) continue;
    require(is_in_directory(directory, file),
            "[huggingface] {}: shard '{}': expected by {} for tensor '{}', found no such file", directory,
            shown(file), index, shown(tensor));
  }
  return result;
}

}  // namespace

bool is_in_directory(const std::string& directory, std::string_view file_name) {
  std::error_code ignored;
  return fs::exists(fs::path(directory) / file_name, ignored);
}

bool has_hf_weights(const std::string& directory) {
  return std::any_of(kUsualNames.begin(), kUsualNames.end(),
                     [&](std::string_view name) { return is_in_directory(directory, name); }) ||
         (is_in_directory(directory, "config.json") && !weight_files(directory).empty());
}

HfWeightFiles find_hf_weights(const std::string& directory) {
  for (const std::string_view name : kUsualNames) {
    if (!is_in_directory(directory, name)) continue;
    if (name.ends_with(".json")) return read_index(directory, name);
    return {{std::string(name)}};
  }
  const std::vector<std::string> files = weight_files(directory);
  if (files.size() == 1 || (!files.empty() && are_all_shards(files))) return {{files.begin(), files.end()}};
  fail("[huggingface] {}: expected {}, or one other weight file; found {}", directory,
       fmt::join(kUsualNames, ", "), files.empty() ? "none" : fmt::format("{}", fmt::join(files, ", ")));
}

std::map<std::string, std::string> parse_weight_map(std::string_view index, std::string_view where) {
  WeightMapEvents events(where);
  scan_json(index, fmt::format("[huggingface] {}", where), events);
  return events.take();
}

}  // namespace qkv
