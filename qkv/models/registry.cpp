#include "qkv/models/registry.h"

#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/models/families.h"

namespace qkv {
namespace {

// One line per family.
constexpr std::span<const Architecture> (*kFamilies[])() = {
    llama_architectures,
};

}  // namespace

std::vector<std::string> known_model_types() {
  std::vector<std::string> names;
  for (const auto& family : kFamilies) {
    for (const Architecture& row : family()) names.emplace_back(row.model_type);
  }
  return names;
}

std::unique_ptr<Model> make_model(const Json& config, const std::string& where) {
  const JsonView view(config, where);
  const std::vector<std::string> classes = view.strings_or_empty("architectures");
  const std::string type = view.string_or("model_type", "");
  for (const auto& family : kFamilies) {
    for (const Architecture& row : family()) {
      if (type == row.model_type || (type.empty() && !classes.empty() && classes[0] == row.hf_class))
        return row.make(view);
    }
  }
  const std::string found = !type.empty() ? type : classes.empty() ? "nothing" : classes[0];
  fail("{}: key 'model_type': expected one of {}, found '{}'{}", where, fmt::join(known_model_types(), ", "),
       found, suggestion(found, known_model_types()));
}

}  // namespace qkv
