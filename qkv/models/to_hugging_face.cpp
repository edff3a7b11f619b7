// GGUF -> Hugging Face: the original types, bits and files where the file keeps them.
#include <cstring>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "qkv/core/error.h"
#include "qkv/models/checkpoint_tokenizer.h"
#include "qkv/models/gguf_conversion.h"
#include "qkv/models/registry.h"
#include "qkv/models/stored_names.h"
#include "qkv/models/stored_values.h"

namespace qkv {
namespace {

// A JSON object in the metadata; empty if the key is not there.
Json object_in(const Metadata& metadata, std::string_view key) {
  if (!metadata.has(key)) return Json::object();
  const std::string where = fmt::format("{}: metadata '{}'", metadata.where(), key);
  Json json = parse_json(metadata.string(key), where);
  require(json.is_object(), "{}: expected an object, found {}", where, json.type_name());
  return json;
}

std::string prefix_in(const Metadata& metadata, const char* which) {
  return JsonView(object_in(metadata, kHfPrefix), std::string(kHfPrefix)).string_or(which, "");
}

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.bytes() == b.bytes() && (a.bytes() == 0 || std::memcmp(a.raw(), b.raw(), a.bytes()) == 0);
}

class ToHuggingFace {
 public:
  ToHuggingFace(const Checkpoint& source, std::optional<DType> type)
      : source_(source),
        type_(type),
        config_(model_config(source)),
        model_(make_model(*config_.config, config_.where)),
        mappings_(expand(*model_)),
        names_(source, mappings_),
        targets_(Naming::hugging_face, prefix_in(source.metadata(), "removed"),
                 prefix_in(source.metadata(), "added")),
        recorded_types_(object_in(source.metadata(), kHfDtypes)) {
    require(names_.naming() == Naming::gguf, "{}: expected GGUF's names of tensors, found Hugging Face's",
            source.path());
  }

  ConversionPlan plan() {
    tensors_beside_weights(*model_, source_, mappings_, names_);
    for (const auto& group : group_by_tensor(mappings_, targets_)) add_tensor(group);
    for (const auto& mapping : mappings_) {
      const bool lost = mapping.hf.name.empty() && entry_of(mapping) != nullptr;
      require(!lost, "{}: tensor '{}' has no place in Hugging Face's {}", source_.path(), mapping.gguf.name,
              model_->info().architecture);
    }
    add_copies();
    plan_.files = hf_files(source_);
    if (!plan_.files.contains("config.json")) plan_.files["config.json"] = dump_json(own_config(), 2) + "\n";
    std::string problem;
    if (!add_tokenizer_files(source_, plan_.files, problem)) {
      plan_.notes.push_back(fmt::format("the model has no tokenizer: {}", problem));
    }
    return std::move(plan_);
  }

 private:
  const TensorEntry* entry_of(const WeightMapping& mapping) const {
    return mapping.gguf.name.empty() ? nullptr : source_.find(mapping.gguf.name);
  }

  void add_tensor(const StoredGroup& group) {
    PlannedTensor planned;
    planned.entry = {targets_.actual(group.name), DType::f32, group.shape};
    std::optional<DType> common;
    bool mixed = false, any = false;
    for (const WeightMapping* mapping : group.parts) {
      const TensorEntry* entry = entry_of(*mapping);
      if (entry != nullptr) {
        check(*entry, *mapping);
        mixed = mixed || (common && *common != entry->type);
        common = entry->type;
        any = true;
      } else {
        require(mapping->gguf.at.optional || mapping->hf.at.optional || mapping->gguf.name.empty(),
                "{}: tensor '{}' is missing (expected shape {})", source_.path(), mapping->gguf.name,
                mapping->gguf.shape.str());
      }
      planned.parts.push_back(
          {entry == nullptr ? "" : entry->name, mapping->gguf, mapping->hf, mapping->shape});
    }
    if (!any) {
      const bool optional = std::all_of(group.parts.begin(), group.parts.end(),
                                        [](const WeightMapping* part) { return part->hf.at.optional; });
      if (optional) return add_kept(std::move(planned));
    }
    for (size_t i = 0; i < planned.parts.size(); ++i) {
      require(!planned.parts[i].source.empty() || group.parts[i]->parameter.ends_with(".bias"),
              "{}: parameter '{}' has no tensor in the source, and '{}' needs it", source_.path(),
              group.parts[i]->parameter, planned.entry.name);
    }
    if (type_) {
      planned.entry.type = *type_;
    } else {
      planned.entry.type = mixed ? DType::f32 : common.value_or(DType::f32);
      restore_original(planned);
    }
    plan_.tensors.push_back(std::move(planned));
  }

  // A tensor that has no place in GGUF, if the metadata keeps it.
  void add_kept(PlannedTensor planned) {
    const std::optional<Tensor> original = original_bits(planned.entry);
    if (!original) return;
    planned.entry.type = type_.value_or(original->dtype());
    planned.ready = original->to(planned.entry.type);
    plan_.tensors.push_back(std::move(planned));
  }

  void check(const TensorEntry& entry, const WeightMapping& mapping) const {
    require(entry.shape == mapping.gguf.shape, "{}: tensor '{}': expected shape {}, found {}", source_.path(),
            entry.name, mapping.gguf.shape.str(), entry.shape.str());
    require(type_ || !is_block(entry.type),
            "{}: tensor '{}' is quantized ({}), which only .gguf and .qkv files hold; --dtype f32, bf16 or "
            "f16 dequantizes it",
            source_.path(), entry.name, name(entry.type));
    require(is_floating(entry.type) || is_block(entry.type),
            "{}: tensor '{}': expected floating point, found {}", source_.path(), entry.name,
            name(entry.type));
  }

  std::optional<DType> recorded_type(const std::string& tensor) const {
    const auto recorded = recorded_types_.find(tensor);
    if (recorded == recorded_types_.end() || !recorded->is_string()) return std::nullopt;
    const std::optional<DType> type = dtype_from_name(recorded->get<std::string>());
    return type && is_floating(*type) ? type : std::nullopt;
  }

  // The tensor as it was, if the metadata keeps its bytes.
  std::optional<Tensor> original_bits(const TensorEntry& entry) const {
    const std::optional<DType> type = recorded_type(entry.name);
    const auto* bits =
        source_.metadata().find_exactly<std::vector<uint8_t>>(std::string(kHfBits) + entry.name);
    if (!type || bits == nullptr || tensor_bytes(*type, entry.shape) != bits->size()) return std::nullopt;
    Tensor original = Tensor::empty(entry.shape, *type);
    if (!bits->empty()) std::memcpy(original.raw(), bits->data(), bits->size());
    return original;
  }

  // The recorded type and bits, where they still say what the file holds.
  void restore_original(PlannedTensor& planned) const {
    const std::optional<DType> type = recorded_type(planned.entry.name);
    if (!type) return;
    if (const auto original = original_bits(planned.entry)) {
      if (!agrees(planned, *original)) return;
      planned.ready = *original;
      planned.entry.type = *type;
      return;
    }
    if (*type == planned.entry.type) return;
    const Tensor values = make_tensor(source_, planned).to(DType::f32);
    if (same_bits(values.to(*type).to(DType::f32), values)) planned.entry.type = *type;
  }

  // Whether the source has what storing these original values would give.
  bool agrees(const PlannedTensor& planned, const Tensor& original) const {
    for (const auto& part : planned.parts) {
      if (part.source.empty()) return false;
      StoredTensor untransformed = part.from;
      untransformed.at.values = StoredValues::same;
      const Tensor stored =
          take_parameter(source_.read(part.source), untransformed, part.parameter).to(DType::f32);
      Tensor again = Tensor::empty(part.parameter);
      put_parameter(again, {part.from.name, part.parameter, {.values = part.from.at.values}},
                    take_parameter(original, part.to, part.parameter).to(DType::f32));
      if (!same_bits(stored, again)) return false;
    }
    return true;
  }

  void add_copies() {
    const Json copies = object_in(source_.metadata(), kHfCopies);
    for (const auto& [copy, original] : copies.items()) {
      for (const auto& tensor : plan_.tensors) {
        if (!original.is_string() || tensor.entry.name != original.get<std::string>()) continue;
        PlannedTensor planned = tensor;
        planned.entry.name = copy;
        plan_.tensors.push_back(std::move(planned));
        break;
      }
    }
  }

  Json own_config() const {
    Json config = model_->hf_config();
    int64_t most = 0;
    std::unordered_map<int, int64_t> elements;
    for (const auto& tensor : plan_.tensors) {
      int64_t& count = elements[static_cast<int>(tensor.entry.type)];
      count += tensor.entry.shape.elements();
      if (count < most) continue;
      most = count;
      config["torch_dtype"] = tensor.entry.type == DType::bf16  ? "bfloat16"
                              : tensor.entry.type == DType::f16 ? "float16"
                                                                : "float32";
    }
    return config;
  }

  const Checkpoint& source_;
  std::optional<DType> type_;
  ModelConfig config_;
  std::unique_ptr<Model> model_;
  std::vector<WeightMapping> mappings_;
  StoredNames names_, targets_;
  Json recorded_types_;
  ConversionPlan plan_;
};

}  // namespace

ConversionPlan plan_to_hugging_face(const Checkpoint& source, std::optional<DType> type) {
  return ToHuggingFace(source, type).plan();
}

}  // namespace qkv
