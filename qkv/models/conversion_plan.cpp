#include "qkv/models/conversion_plan.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "qkv/core/error.h"
#include "qkv/formats/python_json.h"
#include "qkv/models/gguf_conversion.h"
#include "qkv/models/registry.h"
#include "qkv/models/stored_values.h"

namespace qkv {
namespace {

bool has_gguf_names(const Checkpoint& checkpoint) {
  return checkpoint.metadata().has("general.architecture");
}

// The config.json that goes with floating-point values of another type.
void set_config_file_type(HfFiles& files, DType type) {
  const auto file = files.find("config.json");
  if (file == files.end()) return;
  Json config = parse_python_json(file->second, "config.json");
  if (!config.is_object()) return;
  set_config_type(config, type);
  file->second = dump_python_json(config, 2) + "\n";
}

ConversionPlan plan_by_name(const Checkpoint& source, Container target, std::optional<DType> type) {
  ConversionPlan plan;
  const bool gguf_names = has_gguf_names(source);
  for (const auto& entry : source.entries()) {
    TensorEntry planned = entry;
    if (is_floating(entry.type) || is_block(entry.type)) {
      planned.type = type.value_or(entry.type);
      if (gguf_names && type && gguf_wants_f32(entry.name, entry.shape)) planned.type = DType::f32;
    }
    require(target == Container::qkv || target == Container::gguf || !is_block(planned.type),
            "{}: tensor '{}' is quantized ({}), which only .gguf and .qkv files hold; --dtype f32, bf16 or "
            "f16 dequantizes it",
            source.path(), entry.name, name(planned.type));
    plan.tensors.push_back({planned, entry.name, {}});
  }
  plan.files = hf_files(source);
  for (const auto& [key, value] : source.metadata().values()) {
    if (key.starts_with(kHfFile) || key == kHfConfig || key == kHfGenerationConfig)
      continue;  // are in plan.files
    if (type && key == kHfDtypes) continue;
    plan.metadata.set(key, value);
  }
  if (gguf_names && type) plan.metadata.set("general.file_type", gguf_file_type(*type));
  if (type && !gguf_names) set_config_file_type(plan.files, *type);
  return plan;
}

}  // namespace

ConversionPlan plan_conversion(const Checkpoint& source, Container target, std::optional<DType> type) {
  require(!source.entries().empty(), "{}: expected at least one tensor to convert, found none",
          source.path());
  const bool from_gguf = has_gguf_names(source);
  if (target == Container::gguf && !from_gguf) return plan_to_gguf(source, type);
  if (target != Container::gguf && target != Container::qkv && from_gguf) {
    ConversionPlan plan = plan_to_hugging_face(source, type);
    if (type) set_config_file_type(plan.files, *type);
    return plan;
  }
  return plan_by_name(source, target, type);
}

Tensor make_tensor(const Checkpoint& source, const PlannedTensor& planned) {
  if (planned.ready.defined()) return planned.ready;
  const DType type = planned.entry.type;
  if (!planned.whole.empty()) return source.read(planned.whole).to(type);
  Tensor result;
  for (const auto& part : planned.parts) {
    const Tensor values = part.source.empty()
                              ? Tensor::zeros(part.parameter, type)
                              : take_parameter(source.read(part.source), part.from, part.parameter).to(type);
    if (planned.parts.size() == 1 && lies_as_it_is(part.to)) return values.view(planned.entry.shape);
    if (!result.defined()) result = Tensor::empty(planned.entry.shape, type);
    put_parameter(result, part.to, values);
  }
  return result;
}

}  // namespace qkv
