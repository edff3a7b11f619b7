#include "qkv/models/registry.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/formats/python_json.h"
#include "qkv/models/families.h"
#include "qkv/models/hf_metadata.h"
#include "qkv/models/score_model.h"

namespace qkv {
namespace {

// One line per family. A GGUF name that several rows share is offered to them in this order.
constexpr std::span<const Architecture> (*kFamilies[])() = {
    llama_architectures, llama_expert_architectures, gemma_architectures, phi_architectures,
    gpt2_architectures,  gpt_neox_architectures,     gptj_architectures,  falcon_architectures,
    bloom_architectures, mpt_architectures,          opt_architectures,   deepseek_architectures,
    bert_architectures,  mamba_architectures,
};

constexpr const char* kGgufArchitecture = "general.architecture";

// "nearest known: a, b" or, if nothing is near, "known: ...".
std::string neighbours(std::string_view word, std::vector<std::string> candidates) {
  constexpr size_t kShown = 3;
  std::vector<std::string> near;
  std::vector<std::string> rest = candidates;
  while (near.size() < kShown) {
    const auto next = nearest_word(word, rest);
    if (!next) break;
    near.push_back(*next);
    std::erase(rest, *next);
  }
  return near.empty() ? fmt::format("known: {}", fmt::join(candidates, ", "))
                      : fmt::format("nearest known: {}", fmt::join(near, ", "));
}

std::vector<std::string> known_gguf_names() {
  std::vector<std::string> names;
  for (const Architecture* row : architectures()) {
    if (!row->gguf.empty() && std::find(names.begin(), names.end(), row->gguf) == names.end()) {
      names.emplace_back(row->gguf);
    }
  }
  return names;
}

}  // namespace

std::vector<const Architecture*> architectures() {
  std::vector<const Architecture*> rows;
  for (const auto& family : kFamilies) {
    for (const Architecture& row : family()) rows.push_back(&row);
  }
  return rows;
}

std::vector<std::string> known_model_types() {
  std::vector<std::string> names;
  for (const Architecture* row : architectures()) {
    if (std::find(names.begin(), names.end(), row->model_type) == names.end())
      names.emplace_back(row->model_type);
  }
  return names;
}

const Architecture* find_architecture_or_null(const Json& config) {
  const JsonView view(config, "config.json");
  const std::vector<std::string> classes = view.strings_or_empty("architectures");
  const std::string type = view.string_or("model_type", "");
  const Architecture* by_type = nullptr;
  for (const Architecture* row : architectures()) {
    const bool same_class = std::find(classes.begin(), classes.end(), row->hf_class) != classes.end();
    if (same_class && (type.empty() || type == row->model_type)) return row;
    if (by_type == nullptr && type == row->model_type) by_type = row;
  }
  return by_type;
}

const Architecture& find_architecture(const Json& config, const std::string& where) {
  if (const Architecture* row = find_architecture_or_null(config)) return *row;
  const JsonView view(config, where);
  const std::vector<std::string> classes = view.strings_or_empty("architectures");
  const std::string type = view.string_or("model_type", "");
  require(!type.empty() || !classes.empty(),
          "{}: key 'model_type': expected the name of an architecture, found nothing", where);
  const std::string found = !type.empty() ? type : classes[0];
  fail(
      "{}: key 'model_type': architecture '{}' has no forward pass and no weight table in this program ({}); "
      "its tensors "
      "can still be inspected and moved between .safetensors, .pt and .qkv files",
      where, found, neighbours(found, known_model_types()));
}

const Architecture* architecture_of(const Model& model) {
  const ModelInfo& info = model.info();
  for (const Architecture* row : architectures()) {
    if (row->model_type == info.model_type && row->hf_class == info.architecture) return row;
  }
  return nullptr;
}

std::unique_ptr<Model> make_model(const Json& config, const std::string& where) {
  if (is_score_config(config) && find_architecture_or_null(config) != nullptr)
    return make_score_model(config, where, false);
  return find_architecture(config, where).make(JsonView(config, where));
}

bool has_model_config(const Checkpoint& checkpoint) {
  return checkpoint.config() != nullptr || checkpoint.metadata().has(kHfConfig) ||
         checkpoint.metadata().has(kGgufArchitecture);
}

ModelConfig model_config(const Checkpoint& checkpoint) {
  const std::string& path = checkpoint.path();
  if (checkpoint.config() != nullptr)
    return {std::make_shared<const Json>(*checkpoint.config()), path + ": config.json"};
  const Metadata& metadata = checkpoint.metadata();
  if (metadata.has(kHfConfig)) {
    const std::string where = fmt::format("{}: metadata '{}'", path, kHfConfig);
    return {std::make_shared<const Json>(parse_python_json(metadata.string(kHfConfig), where)), where};
  }
  require(metadata.has(kGgufArchitecture),
          "{}: expected a config.json that says what the model is beside it or inside it, found none", path);
  const std::string name = metadata.string(kGgufArchitecture);
  bool known = false;
  for (const Architecture* row : architectures()) {
    if (row->gguf != name) continue;
    known = true;
    if (row->from_gguf == nullptr) continue;
    Json config = row->from_gguf(metadata, checkpoint);
    if (!config.is_null()) return {std::make_shared<const Json>(std::move(config)), path};
  }
  if (known)
    fail("{}: a GGUF file of architecture '{}' that is none of the variants this program reads", path, name);
  fail("{}: GGUF architecture '{}' has no forward pass and no weight table in this program ({})", path, name,
       neighbours(name, known_gguf_names()));
}

}  // namespace qkv
