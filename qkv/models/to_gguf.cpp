// Hugging Face -> GGUF: types, extra tensors and keys as llama.cpp wants them, and what the exact way back
// needs.
#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "qkv/core/error.h"
#include "qkv/models/checkpoint_tokenizer.h"
#include "qkv/models/gguf_conversion.h"
#include "qkv/models/registry.h"
#include "qkv/models/stored_names.h"
#include "qkv/models/stored_values.h"

namespace qkv {
namespace {

// llama.cpp's numbering of model files (enum llama_ftype), where all matrices have one type.
constexpr std::pair<DType, uint32_t> kFileTypes[] = {
    {DType::f32, 0},     {DType::f16, 1},     {DType::q4_0, 2},  {DType::q4_1, 3},
    {DType::q8_0, 7},    {DType::q5_0, 8},    {DType::q5_1, 9},  {DType::q2_k, 10},
    {DType::q3_k, 12},   {DType::q4_k, 15},   {DType::q5_k, 17}, {DType::q6_k, 18},
    {DType::iq4_nl, 25}, {DType::iq4_xs, 30}, {DType::bf16, 32}, {DType::mxfp4, 38},
};
// ggml's GGML_QNT_VERSION.
constexpr uint32_t kQuantizationVersion = 2;
// The largest tensor without a place that is kept in the metadata.
constexpr uint64_t kMostKeptBytes = uint64_t{64} << 20;

bool is_gguf_weight_type(DType type) {
  return type == DType::f32 || type == DType::f16 || type == DType::bf16 || block_type(type).has_value();
}

// The types of all parts if they agree; f32, which holds any of them exactly, if not.
DType common_type(const std::vector<DType>& types) {
  return std::all_of(types.begin(), types.end(), [&](DType type) { return type == types[0]; }) ? types[0]
                                                                                               : DType::f32;
}

bool all_zero(const Tensor& values) {
  const std::vector<float> floats = values.to_floats();
  return std::all_of(floats.begin(), floats.end(), [](float x) { return x == 0; });
}

class ToGguf {
 public:
  ToGguf(const Checkpoint& source, std::optional<DType> type)
      : source_(source),
        type_(type),
        config_(model_config(source)),
        architecture_(find_architecture(*config_.config, config_.where)),
        model_(make_model(*config_.config, config_.where)),
        mappings_(expand(*model_)),
        names_(source, mappings_) {
    require(!architecture_.gguf.empty() && architecture_.to_gguf != nullptr,
            "{}: GGUF has no architecture for {} models", source.path(), architecture_.hf_class);
    require(names_.naming() == Naming::hugging_face,
            "{}: tensors are named as in GGUF, but the key general.architecture is missing", source.path());
  }

  ConversionPlan plan() {
    for (const auto& mapping : mappings_) require_stored(mapping);
    for (const auto& group : group_by_tensor(mappings_, StoredNames(Naming::gguf))) add_tensor(group);
    for (const auto& mapping : mappings_) {
      if (mapping.gguf.name.empty()) require_dispensable(mapping);
    }
    const JsonView config(*config_.config, config_.where);
    if (architecture_.gguf_tensors != nullptr) {
      for (auto& [name, tensor] : architecture_.gguf_tensors(config)) {
        plan_.tensors.push_back({{name, tensor.dtype(), tensor.shape()}, "", {}, tensor});
      }
    }
    add_keys(config);
    keep_hf_files(hf_files(source_), plan_.metadata);
    keep_tensor_facts();
    return std::move(plan_);
  }

 private:
  const TensorEntry* entry_of(const WeightMapping& mapping) const {
    return mapping.hf.name.empty() ? nullptr : source_.find(names_.actual(mapping.hf.name));
  }

  void require_stored(const WeightMapping& mapping) const {
    const TensorEntry* entry = entry_of(mapping);
    if (entry == nullptr) {
      require(mapping.hf.at.optional || mapping.hf.name.empty(),
              "{}: tensor '{}' is missing (expected shape {})", source_.path(),
              names_.actual(mapping.hf.name), mapping.hf.shape.str());
      return;
    }
    require(entry->shape == mapping.hf.shape, "{}: tensor '{}': expected shape {}, found {}", source_.path(),
            entry->name, mapping.hf.shape.str(), entry->shape.str());
    require(is_floating(entry->type) || is_block(entry->type),
            "{}: tensor '{}': expected floating point, found {}", source_.path(), entry->name,
            name(entry->type));
  }

  void add_tensor(const StoredGroup& group) {
    std::vector<DType> types;
    PlannedTensor planned;
    for (const WeightMapping* mapping : group.parts) {
      const TensorEntry* entry = entry_of(*mapping);
      if (entry != nullptr) types.push_back(entry->type);
      planned.parts.push_back(
          {entry == nullptr ? "" : entry->name, mapping->hf, mapping->gguf, mapping->shape});
    }
    if (types.empty()) {
      const bool optional = std::all_of(group.parts.begin(), group.parts.end(),
                                        [](const WeightMapping* part) { return part->gguf.at.optional; });
      if (optional) return;
      types.push_back(DType::f32);
    }
    // Parts that the source lacks are zeros, which only biases may be.
    for (size_t i = 0; i < planned.parts.size(); ++i) {
      require(!planned.parts[i].source.empty() || group.parts[i]->parameter.ends_with(".bias"),
              "{}: parameter '{}' has no tensor in the source, and GGUF's '{}' needs it", source_.path(),
              group.parts[i]->parameter, group.name);
    }
    const bool transformed =
        std::any_of(group.parts.begin(), group.parts.end(),
                    [](const WeightMapping* part) { return part->gguf.at.values != StoredValues::same; });
    DType type = type_.value_or(common_type(types));
    if (transformed || gguf_wants_f32(group.name, group.shape)) type = DType::f32;
    if (!type_) {
      for (size_t i = 0; i < group.parts.size(); ++i) require_exact(*group.parts[i], type, transformed);
    }
    planned.entry = {group.name, type, group.shape};
    plan_.tensors.push_back(std::move(planned));
  }

  // Without --dtype nothing may be rounded.
  void require_exact(const WeightMapping& part, DType type, bool transformed) {
    const TensorEntry* entry = entry_of(part);
    if (entry == nullptr) return;
    require(is_gguf_weight_type(entry->type) && (entry->type == type || !is_block(entry->type)),
            "{}: tensor '{}': readers of GGUF take f32, bf16, f16 and its block types here, found {}; "
            "--dtype f32, bf16 or f16 "
            "converts it",
            source_.path(), entry->name, name(entry->type));
    if (entry->type != type || transformed) original_types_[entry->name] = entry->type;
    if (transformed) with_bits_.insert(entry->name);
  }

  // A tensor without a place in GGUF must say nothing: it is zero, or one that the model can do without.
  void require_dispensable(const WeightMapping& mapping) {
    const TensorEntry* entry = entry_of(mapping);
    if (entry == nullptr) return;
    if (mapping.hf.at.optional && !type_ && entry->bytes <= kMostKeptBytes) {
      original_types_[entry->name] = entry->type;
      with_bits_.insert(entry->name);
      plan_.notes.push_back(fmt::format(
          "tensor '{}' has no place in GGUF: it is kept in the metadata, where only qkv looks", entry->name));
      return;
    }
    if (mapping.hf.at.optional && type_) {
      plan_.notes.push_back(fmt::format("tensor '{}' is left out: GGUF has no place for it", entry->name));
      return;
    }
    require(mapping.parameter.ends_with(".bias") &&
                all_zero(take_parameter(source_.read(entry->name), mapping.hf, mapping.shape)),
            "{}: tensor '{}' {} has no place in GGUF's {} architecture", source_.path(), entry->name,
            entry->shape.str(), architecture_.gguf);
    plan_.notes.push_back(
        fmt::format("tensor '{}' is left out: it is zero and GGUF has no place for it", entry->name));
  }

  void add_keys(const JsonView& config) {
    Metadata& metadata = plan_.metadata;
    metadata.set("general.architecture", std::string(architecture_.gguf));
    metadata.set("general.type", std::string("model"));
    const std::filesystem::path path = std::filesystem::absolute(source_.path()).lexically_normal();
    const std::string name =
        path.filename().empty() ? path.parent_path().filename().string() : path.filename().string();
    metadata.set("general.name", name);
    DType most = DType::f32;
    std::map<DType, int64_t> elements;
    for (const auto& tensor : plan_.tensors) {
      if (tensor.entry.shape.rank() < 2) continue;
      if ((elements[tensor.entry.type] += tensor.entry.shape.elements()) >= elements[most])
        most = tensor.entry.type;
    }
    metadata.set("general.file_type", gguf_file_type(most));
    metadata.set("general.quantization_version", kQuantizationVersion);
    architecture_.to_gguf(config, metadata);
    std::string problem;
    const auto tokenizer = checkpoint_tokenizer(source_, problem);
    if (!write_vocabulary(tokenizer.get(), model_->info().vocabulary, metadata)) {
      plan_.notes.push_back(fmt::format("the file has no vocabulary: {}", problem));
    }
  }

  void keep_tensor_facts() {
    Json copies = Json::object();
    for (const auto& extra : tensors_beside_weights(*model_, source_, mappings_, names_)) {
      if (const std::string original = original_of(extra); !original.empty()) {
        copies[extra] = original;
      } else {
        plan_.notes.push_back(
            fmt::format("tensor '{}' is left out: the configuration says what it does", extra));
      }
    }
    if (!copies.empty()) plan_.metadata.set(std::string(kHfCopies), dump_json(copies));
    if (!names_.removed().empty() || !names_.added().empty()) {
      plan_.metadata.set(std::string(kHfPrefix),
                         dump_json({{"removed", names_.removed()}, {"added", names_.added()}}));
    }
    Json types = Json::object();
    for (const auto& [tensor, type] : original_types_) types[tensor] = std::string(name(type));
    if (!type_) plan_.metadata.set(std::string(kHfDtypes), dump_json(types));
    for (const auto& tensor : with_bits_) {
      const Tensor stored = source_.read(tensor);
      const auto* bytes = reinterpret_cast<const uint8_t*>(stored.raw());
      plan_.metadata.set(std::string(kHfBits) + tensor, std::vector<uint8_t>(bytes, bytes + stored.bytes()));
    }
  }

  // The tensor that a stored head is a copy of; "" if it is of none.
  std::string original_of(const std::string& extra) const {
    const std::string embedding = names_.actual(mappings_[0].hf.name);
    const TensorEntry *copy = source_.find(extra), *original = source_.find(embedding);
    if (original == nullptr || copy->shape != original->shape || copy->type != original->type) return "";
    const bool same = std::memcmp(source_.read(extra).raw(), source_.read(embedding).raw(), copy->bytes) == 0;
    source_.release(extra);
    source_.release(embedding);
    return same ? embedding : "";
  }

  const Checkpoint& source_;
  std::optional<DType> type_;
  ModelConfig config_;
  const Architecture& architecture_;
  std::unique_ptr<Model> model_;
  std::vector<WeightMapping> mappings_;
  StoredNames names_;
  std::map<std::string, DType> original_types_;
  std::set<std::string> with_bits_;
  ConversionPlan plan_;
};

}  // namespace

bool gguf_wants_f32(std::string_view name, const Shape& shape) {
  constexpr std::array<std::string_view, 6> kEndings = {
      "_norm.weight",         "ffn_gate_inp.weight", "ffn_gate_inp_shexp.weight",
      "position_embd.weight", "token_types.weight",  "ssm_conv1d.weight"};
  if (shape.rank() < 2 || !name.ends_with(".weight")) return true;
  return std::any_of(kEndings.begin(), kEndings.end(),
                     [&](std::string_view ending) { return name.ends_with(ending); });
}

uint32_t gguf_file_type(DType type) {
  for (const auto& [known, number] : kFileTypes) {
    if (known == type) return number;
  }
  return 1024;  // LLAMA_FTYPE_GUESSED: a reader is to look at the tensors
}

ConversionPlan plan_to_gguf(const Checkpoint& source, std::optional<DType> type) {
  return ToGguf(source, type).plan();
}

}  // namespace qkv
