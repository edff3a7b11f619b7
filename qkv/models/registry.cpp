#include "qkv/models/registry.h"

#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/models/llama.h"

namespace qkv {
namespace {

struct Architecture {
  const char* model_type;
  const char* hf_class;
  std::unique_ptr<Model> (*make)(const JsonView& config);
};

// One line per architecture.
constexpr Architecture kArchitectures[] = {
    {"llama", "LlamaForCausalLM",
     [](const JsonView& config) -> std::unique_ptr<Model> { return std::make_unique<Llama>(LlamaConfig::from_hf(config), config.json()); }},
};

}  // namespace

std::vector<std::string> known_model_types() {
  std::vector<std::string> names;
  for (const auto& row : kArchitectures) names.emplace_back(row.model_type);
  return names;
}

std::unique_ptr<Model> make_model(const Json& config, const std::string& where) {
  const JsonView view(config, where);
  const std::vector<std::string> classes = view.strings_or_empty("architectures");
  const std::string type = view.string_or("model_type", "");
  for (const auto& row : kArchitectures) {
    if (type == row.model_type || (type.empty() && !classes.empty() && classes[0] == row.hf_class)) return row.make(view);
  }
  const std::string found = !type.empty() ? type : classes.empty() ? "nothing" : classes[0];
  fail("{}: key 'model_type': expected one of {}, found '{}'{}", where, fmt::join(known_model_types(), ", "), found,
       suggestion(found, known_model_types()));
}

}  // namespace qkv
