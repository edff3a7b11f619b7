#include "qkv/models/random_checkpoint.h"

#include <nlohmann/json.hpp>

#include "qkv/models/registry.h"
#include "qkv/models/stored_values.h"
#include "qkv/models/weights.h"

namespace qkv {

RandomCheckpoint::RandomCheckpoint(const Json& config, DType type, uint64_t seed, float standard_deviation,
                                   std::string where)
    : Checkpoint(where),
      type_(type),
      seed_(seed),
      standard_deviation_(standard_deviation),
      model_(make_model(config, where)),
      mappings_(expand(*model_)) {
  Json written = model_->hf_config();
  written["torch_dtype"] = type == DType::f32 ? "float32" : type == DType::bf16 ? "bfloat16" : "float16";
  config_ = std::make_unique<const Json>(std::move(written));
  groups_ = group_by_tensor(mappings_, StoredNames(Naming::hugging_face));
  std::vector<TensorEntry> entries;
  for (const StoredGroup& group : groups_) {
    entries.push_back(
        {.name = group.name, .type = type, .shape = group.shape, .bytes = tensor_bytes(type, group.shape)});
  }
  set_entries(std::move(entries));
}

RandomCheckpoint::~RandomCheckpoint() = default;

Tensor RandomCheckpoint::read_entry(size_t index) const {
  const StoredGroup& group = groups_[index];
  Tensor stored = Tensor::empty(group.shape, type_);
  for (const WeightMapping* part : group.parts) {
    Tensor parameter = Tensor::placeholder(part->shape);
    initialize_parameter(part->parameter, parameter, model_->info().layers, seed_, standard_deviation_);
    put_parameter(stored, part->hf, parameter.to(type_));
  }
  return stored;
}

}  // namespace qkv
