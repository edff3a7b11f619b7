#include "qkv/formats/quantized/dequantized.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <unordered_map>

#include "qkv/core/error.h"
#include "qkv/core/parallel.h"
#include "qkv/formats/content.h"
#include "qkv/formats/python_json.h"
#include "qkv/formats/quantized/scheme.h"

namespace qkv {
namespace {

struct Method {
  std::string_view name;  // config.json's quant_method
  DequantizationPlanner plan;
};

constexpr Method kMethods[] = {
    {"gptq", plan_gptq}, {"awq", plan_awq},        {"bitsandbytes", plan_bitsandbytes},
    {"fp8", plan_fp8},   {"fbgemm_fp8", plan_fp8}, {"compressed-tensors", plan_compressed_tensors},
};

// Where older libraries than transformers' own put the settings: in a file beside config.json, which does not
// name the method.
struct SettingsFile {
  std::string_view file;
  std::string_view method;
};
constexpr SettingsFile kSettingsFiles[] = {{"quantize_config.json", "gptq"}, {"quant_config.json", "awq"}};

constexpr std::string_view kConfigKeys[] = {"quantization_config", "compression_config"};

// The settings of the quantization, with their quant_method; null if there is none.
Json find_settings(const Checkpoint& stored) {
  if (stored.config() == nullptr) return nullptr;
  for (const std::string_view key : kConfigKeys) {
    const auto it = stored.config()->find(std::string(key));
    if (it == stored.config()->end() || !it->is_object()) continue;
    Json settings = *it;
    const bool is_old_bitsandbytes = !settings.contains("quant_method") &&
                                     (settings.contains("load_in_4bit") || settings.contains("load_in_8bit"));
    if (is_old_bitsandbytes) settings["quant_method"] = "bitsandbytes";
    return settings;
  }
  for (const auto& [file, method] : kSettingsFiles) {
    const auto text = stored.file(file);
    if (!text) continue;
    Json settings = parse_python_json(*text, fmt::format("{}/{}", stored.path(), file));
    if (!settings.is_object()) continue;
    if (!settings.contains("quant_method")) settings["quant_method"] = std::string(method);
    return settings;
  }
  return nullptr;
}

const Method& find_method(const std::string& name, const std::string& path) {
  const auto it = std::find_if(std::begin(kMethods), std::end(kMethods),
                               [&](const Method& method) { return method.name == name; });
  if (it != std::end(kMethods)) return *it;
  std::vector<std::string> names;
  for (const auto& method : kMethods) names.emplace_back(method.name);
  fail("[checkpoint] {}: quantization_config: quant_method: expected one of {}; found '{}'{}", path,
       fmt::join(names, ", "), shown(name), suggestion(name, names));
}

// GPT-2's layers are stored as (inputs, outputs); quantizers see them as (outputs, inputs) like all others.
bool is_stored_transposed(const Json& config, std::string_view tensor) {
  const auto type = config.find("model_type");
  const bool is_gpt2 =
      type != config.end() && (*type == "gpt2" || *type == "openai-gpt" || *type == "imagegpt");
  return is_gpt2 && is_part(tensor, {"c_attn.weight", "c_proj.weight", "c_fc.weight", "q_attn.weight"});
}

Tensor transposed(const Tensor& in) {
  const int64_t rows = in.dim(0);
  const int64_t cols = in.dim(1);
  Tensor out = Tensor::empty(Shape{cols, rows});
  const float* from = in.data<float>();
  float* to = out.data<float>();
  constexpr int64_t kChunk = 16;
  parallel_for(cols, kChunk, [&](int64_t begin, int64_t end) {
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t col = begin; col < end; ++col) to[col * rows + row] = from[row * cols + col];
  });
  return out;
}

class DequantizedView final : public Checkpoint {
 public:
  DequantizedView(std::unique_ptr<Checkpoint> stored, DequantizationPlan plan)
      : Checkpoint(stored->path()), stored_(std::move(stored)), config_(*stored_->config()) {
    for (const std::string_view key : kConfigKeys) config_.erase(std::string(key));
    metadata_ = stored_->metadata();
    std::unordered_map<std::string_view, size_t>
        made_at;  // by the part that its place in the order is that of
    std::set<std::string_view> hidden(plan.dropped.begin(), plan.dropped.end());
    for (size_t i = 0; i < plan.tensors.size(); ++i) {
      made_at.emplace(plan.tensors[i].parts[0], i);
      hidden.insert(plan.tensors[i].parts.begin(), plan.tensors[i].parts.end());
    }
    std::vector<TensorEntry> entries;
    for (const auto& entry : stored_->entries()) {
      const auto made = made_at.find(entry.name);
      if (made == made_at.end()) {
        if (hidden.contains(entry.name)) continue;
        entries.push_back(entry);
        made_.emplace_back();
        continue;
      }
      DequantizedTensor& tensor = plan.tensors[made->second];
      Made item{std::move(tensor), false};
      item.is_transposed = item.tensor->shape.rank() == 2 && is_stored_transposed(config_, item.tensor->name);
      const Shape& shape = item.tensor->shape;
      const Shape seen = item.is_transposed ? Shape{shape[1], shape[0]} : shape;
      entries.push_back({item.tensor->name, DType::f32, seen, tensor_bytes(DType::f32, seen), entry.file});
      made_.push_back(std::move(item));
    }
    require_unique(entries);
    set_entries(std::move(entries));
  }

  std::string_view format_name() const override { return stored_->format_name(); }
  const Json* config() const override { return &config_; }
  const Json* generation_config() const override { return stored_->generation_config(); }
  std::vector<std::string> file_names() const override { return stored_->file_names(); }
  std::optional<std::string> file(std::string_view name) const override {
    if (name == "config.json") return dump_python_json(config_, 2) + "\n";
    return stored_->file(name);
  }
  bool has_checksums() const override { return stored_->has_checksums(); }
  std::vector<std::string> verify() const override { return stored_->verify(); }
  const Checkpoint& stored() const override { return *stored_; }

 private:
  struct Made {
    std::optional<DequantizedTensor> tensor = {};  // none: as stored
    bool is_transposed = false;
  };

  void require_unique(const std::vector<TensorEntry>& entries) const {
    std::set<std::string_view> names;
    for (const auto& entry : entries) {
      if (!names.insert(entry.name).second)
        fail("[checkpoint] {}: tensor '{}': expected either quantized or plain, found both", path(),
             shown(entry.name));
    }
  }

  Tensor read_entry(size_t index) const override {
    const Made& made = made_[index];
    if (!made.tensor) return stored_->read(entries()[index].name);
    Tensor result = Tensor::empty(made.tensor->shape);
    made.tensor->dequantize(result.data<float>());
    return made.is_transposed ? transposed(result) : result;
  }
  void release_entry(size_t index) const override {
    const Made& made = made_[index];
    if (!made.tensor) return stored_->release(entries()[index].name);
    for (const auto& part : made.tensor->parts) stored_->release(part);
  }

  std::unique_ptr<Checkpoint> stored_;
  Json config_;
  std::vector<Made> made_;  // of each entry
};

}  // namespace

std::unique_ptr<Checkpoint> dequantized_view(std::unique_ptr<Checkpoint> stored) {
  const Json settings = find_settings(*stored);
  if (settings.is_null()) return stored;
  const JsonView view(settings, fmt::format("[checkpoint] {}: quantization_config", stored->path()));
  const Method& method = find_method(view.string("quant_method"), stored->path());
  DequantizationPlan plan = method.plan(*stored, view);
  if (plan.tensors.empty()) return stored;
  return std::make_unique<DequantizedView>(std::move(stored), std::move(plan));
}

}  // namespace qkv
