#include "qkv/compress/stored_model.h"

#include <algorithm>
#include <charconv>

#include "qkv/core/error.h"
#include "qkv/models/checkpoint_tokenizer.h"
#include "qkv/models/conversion_plan.h"
#include "qkv/models/registry.h"
#include "qkv/models/stored_values.h"
#include "qkv/models/weights.h"

namespace qkv {
namespace {

std::unique_ptr<Model> load(const Checkpoint& source) {
  const ModelConfig config = model_config(source);
  auto model = make_model(*config.config, config.where);
  load_weights(*model, source, Residence::inference);
  return model;
}

}  // namespace

int64_t layer_of(const std::string& parameter) {
  constexpr std::string_view kBlocks = "blocks.";
  if (!parameter.starts_with(kBlocks)) return -1;
  int64_t layer = -1;
  std::from_chars(parameter.data() + kBlocks.size(), parameter.data() + parameter.size(), layer);
  return layer;
}

bool has_blocks(const Checkpoint& checkpoint) {
  const auto& entries = checkpoint.entries();
  return std::any_of(entries.begin(), entries.end(),
                     [](const TensorEntry& entry) { return is_block(entry.type); });
}

StoredModel::StoredModel(const Checkpoint& source)
    : source_(source),
      owner_(load(source)),
      model_(dynamic_cast<Decoder*>(owner_.get())),
      mappings_(expand(*owner_)),
      source_names_(source, mappings_),
      names_(source_names_.naming() == Naming::hugging_face ? source_names_
                                                            : StoredNames(Naming::hugging_face)) {
  require(model_ != nullptr && model_->info().causal, "{}: expected a language model, found {}",
          source.path(), owner_->info().architecture);
  for (auto& group : group_by_tensor(mappings_, names_)) {
    const bool absent = std::all_of(group.parts.begin(), group.parts.end(), [&](const WeightMapping* part) {
      return entry_of(*part) == nullptr && (part->hf.at.optional || part->gguf.at.optional);
    });
    if (!absent) groups_.push_back(std::move(group));
  }
}

const TensorEntry* StoredModel::entry_of(const WeightMapping& mapping) const {
  const StoredTensor& place = source_names_.place(mapping);
  return place.name.empty() ? nullptr : source_.find(source_names_.actual(place.name));
}

DType StoredModel::type_of(const StoredGroup& group) const {
  std::optional<DType> type;
  for (const WeightMapping* part : group.parts) {
    const TensorEntry* entry = entry_of(*part);
    if (entry == nullptr) continue;
    if (is_block(entry->type)) return DType::f16;
    const bool is_plain =
        entry->type == DType::f32 || entry->type == DType::bf16 || entry->type == DType::f16;
    if (!is_plain || (type && *type != entry->type)) return DType::f32;
    type = entry->type;
  }
  return type.value_or(DType::f32);
}

Tensor StoredModel::parameter(const std::string& name) {
  if (parameters_.empty())
    model_->visit("",
                  [&](const std::string& of, Tensor& parameter) { parameters_[of] = parameter.detach(); });
  return parameters_.at(name);
}

Tensor StoredModel::make(const StoredGroup& group, DType type) {
  Tensor stored = Tensor::empty(group.shape, type);
  for (const WeightMapping* part : group.parts)
    put_parameter(stored, part->hf, parameter(part->parameter).to(type));
  return stored;
}

HfFiles StoredModel::files() const {
  return plan_conversion(source_, Container::huggingface,
                         has_blocks(source_) ? std::optional(DType::f16) : std::nullopt)
      .files;
}

std::unique_ptr<Tokenizer> StoredModel::tokenizer() const {
  std::string problem;
  auto tokenizer = checkpoint_tokenizer(source_, problem);
  require(tokenizer != nullptr, "{}", problem);
  return tokenizer;
}

}  // namespace qkv
