#include "qkv/models/random_checkpoint.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/models/registry.h"
#include "qkv/models/stored_values.h"
#include "qkv/models/weights.h"

namespace qkv {

RandomCheckpoint::RandomCheckpoint(const Json& config, const RandomWeights& weights, HfFiles files,
                                   std::string path)
    : Checkpoint(path),
      files_(std::move(files)),
      weights_(weights),
      standard_deviation_(weights.standard_deviation.value_or(
          static_cast<float>(JsonView(config, path).number_or("initializer_range", 0.02)))),
      model_(make_model(config, path)),
      mappings_(expand(*model_)),
      groups_(group_by_tensor(mappings_, StoredNames(Naming::hugging_face))) {
  const DType type = weights.type;
  require(type == DType::f32 || type == DType::bf16 || type == DType::f16,
          "{}: dtype: expected f32, bf16 or f16, found {}", path, name(type));
  require(std::isfinite(standard_deviation_) && standard_deviation_ > 0,
          "{}: standard deviation (initializer_range): expected a positive number, found {}", path,
          standard_deviation_);
  auto written = std::make_unique<Json>(config);
  set_config_type(*written, type);
  written->erase("quantization_config");
  config_ = std::move(written);
  files_.erase("config.json");  // it is config_
  std::vector<TensorEntry> entries;
  for (const StoredGroup& group : groups_) {
    entries.push_back(
        {.name = group.name, .type = type, .shape = group.shape, .bytes = tensor_bytes(type, group.shape)});
  }
  set_entries(std::move(entries));
}

RandomCheckpoint::~RandomCheckpoint() = default;

std::vector<std::string> RandomCheckpoint::file_names() const {
  std::vector<std::string> names;
  for (const auto& [name, content] : files_) names.push_back(name);
  return names;
}

std::optional<std::string> RandomCheckpoint::file(std::string_view name) const {
  const auto found = files_.find(std::string(name));
  return found == files_.end() ? std::nullopt : std::optional(found->second);
}

Tensor RandomCheckpoint::read_entry(size_t index) const {
  const StoredGroup& group = groups_[index];
  Tensor stored;
  for (const WeightMapping* part : group.parts) {
    Tensor parameter = Tensor::placeholder(part->shape);
    initialize_parameter(part->parameter, parameter, model_->info().layers, weights_.seed,
                         standard_deviation_);
    Tensor values = parameter.to(weights_.type);
    if (group.parts.size() == 1 && lies_as_it_is(part->hf)) return values.view(group.shape);
    if (!stored.defined()) stored = Tensor::empty(group.shape, weights_.type);
    put_parameter(stored, part->hf, values);
  }
  return stored;
}

}  // namespace qkv
