// Adapters in files: PEFT directories (adapter_config.json with adapter_model.safetensors or .bin) and
// llama.cpp's GGUF adapters (tensors "<weight>.lora_a" and "<weight>.lora_b", metadata adapter.type and
// adapter.lora.alpha).
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <unordered_set>

#include "qkv/core/error.h"
#include "qkv/formats/checkpoint.h"
#include "qkv/formats/gguf.h"
#include "qkv/formats/safetensors.h"
#include "qkv/models/adapter.h"
#include "qkv/models/registry.h"
#include "qkv/models/stored_names.h"
#include "qkv/models/stored_values.h"

namespace qkv {
namespace {

namespace fs = std::filesystem;

constexpr const char* kConfigFile = "adapter_config.json";
constexpr const char* kPrefix = "base_model.model.";

}  // namespace

// A tensor of a file, and the tensors of ours that lie in it.
struct Adapter::FileTensor {
  struct Slice {
    Tensor tensor;
    StoredTensor place;  // its rows in the stored tensor, seen as (rows, columns) or as a vector
  };
  std::string name;
  Shape shape;
  std::vector<Slice> slices;

  Shape seen() const { return slices[0].tensor.shape().rank() == 1 ? Shape{shape.elements()} : shape; }

  void fill(const Tensor& stored) {
    const Tensor values = stored.to(DType::f32).view(seen());
    for (Slice& slice : slices) {
      slice.place.shape = seen();
      slice.tensor.copy_from(take_parameter(values, slice.place, slice.tensor.shape()));
      slice.tensor.mark_modified();
    }
  }
  Tensor collect() const {
    Tensor stored = Tensor::empty(seen());
    for (Slice slice : slices) {
      slice.place.shape = seen();
      put_parameter(stored, slice.place, slice.tensor.detach());
    }
    return stored.view(shape);
  }
};

namespace {

// Every tensor must be there with its shape, and no other.
template <typename Tensors>
void read_all(const Checkpoint& checkpoint, Tensors& tensors) {
  std::unordered_set<std::string> known;
  std::vector<std::string> names;
  for (const auto& tensor : tensors) names.push_back(tensor.name);
  for (auto& tensor : tensors) {
    known.insert(tensor.name);
    const TensorEntry* entry = checkpoint.find(tensor.name);
    if (entry == nullptr)
      fail("{}: tensor '{}' is missing (expected shape {})", checkpoint.path(), tensor.name,
           tensor.shape.str());
    require(entry->shape == tensor.shape && is_floating(entry->type),
            "{}: tensor '{}': expected floating point of shape {}, found {} {}", checkpoint.path(),
            tensor.name, tensor.shape.str(), name(entry->type), entry->shape.str());
    tensor.fill(checkpoint.read(tensor.name));
  }
  for (const TensorEntry& entry : checkpoint.entries()) {
    require(known.count(entry.name) > 0,
            "{}: tensor '{}' belongs to no module that is a target and a linear layer of the model{}",
            checkpoint.path(), entry.name, suggestion(entry.name, names));
  }
}

std::unique_ptr<Checkpoint> open_peft_weights(const std::string& directory) {
  for (const char* file : {"adapter_model.safetensors", "adapter_model.bin"}) {
    if (fs::exists(fs::path(directory) / file)) return open_checkpoint((fs::path(directory) / file).string());
  }
  fail("{}: expected adapter_model.safetensors or adapter_model.bin, found neither", directory);
}

// The model's modules in GGUF's naming, found by their first layer.
std::unordered_map<const Linear*, AdapterModule> gguf_modules(Model& model) {
  std::unordered_map<const Linear*, AdapterModule> modules;
  for (AdapterModule& module : linear_modules(model, Naming::gguf))
    modules.emplace(module.parts[0].linear, module);
  return modules;
}

// Whether both are the same layers in the same order.
bool same_layers(const AdapterModule& a, const AdapterModule& b) {
  return std::equal(a.parts.begin(), a.parts.end(), b.parts.begin(), b.parts.end(),
                    [](const AdapterPart& x, const AdapterPart& y) { return x.linear == y.linear; });
}

}  // namespace

std::vector<Adapter::FileTensor> Adapter::file_tensors() const {
  std::vector<FileTensor> tensors;
  const auto add = [&](const std::string& name, Shape shape, const std::vector<AdapterPart>& parts,
                       Tensor AdapterPart::*member) {
    FileTensor tensor{name, shape, {}};
    for (const AdapterPart& part : parts) tensor.slices.push_back({part.*member, part.rows});
    tensors.push_back(std::move(tensor));
  };
  for (const AdapterModule& module : modules_) {
    const std::string name = kPrefix + module.name;
    const int64_t n = module.outputs, k = module.inputs, r = module.rank;
    switch (config_.kind) {
      case AdapterConfig::Kind::lora:
        tensors.push_back({name + ".lora_A.weight", Shape{r, k}, {{module.a, {}}}});
        add(name + ".lora_B.weight", Shape{n, r}, module.parts, &AdapterPart::b);
        if (config_.decomposed)
          add(name + ".lora_magnitude_vector", Shape{n}, module.parts, &AdapterPart::magnitude);
        break;
      case AdapterConfig::Kind::ia3:
        if (module.of_inputs) {
          tensors.push_back({name + ".ia3_l", Shape{1, k}, {{module.a, {}}}});
        } else {
          add(name + ".ia3_l", Shape{n, 1}, module.parts, &AdapterPart::factors);
        }
        break;
      case AdapterConfig::Kind::vera:
        tensors.push_back({name + ".vera_lambda_d", Shape{r}, {{module.a, {}}}});
        add(name + ".vera_lambda_b", Shape{n}, module.parts, &AdapterPart::factors);
        break;
    }
  }
  if (config_.kind == AdapterConfig::Kind::vera) {
    tensors.push_back({"base_model.vera_A", vera_a_.shape(), {{vera_a_, {}}}});
    tensors.push_back({"base_model.vera_B", vera_b_.shape(), {{vera_b_, {}}}});
  }
  add_saved_tensors(tensors);
  return tensors;
}

void Adapter::add_saved_tensors(std::vector<FileTensor>& tensors) const {
  for (const SavedParameter& saved : saved_) {
    const std::string name = kPrefix + saved.name;
    if (tensors.empty() || tensors.back().name != name) tensors.push_back({name, saved.place.shape, {}});
    tensors.back().slices.push_back({saved.trained, saved.place});
  }
}

void Adapter::add_start_tensors(std::vector<FileTensor>& tensors) const {
  for (const AdapterModule& module : modules_) {
    const std::string name = kPrefix + module.name;
    if (module.gates.defined())
      tensors.push_back({name + ".lora_E", Shape{module.rank}, {{module.gates, {}}}});
    if (!module.start_a.defined()) continue;
    tensors.push_back({name + ".start_A.weight", module.start_a.shape(), {{module.start_a, {}}}});
    FileTensor start{name + ".start_B.weight", Shape{module.outputs, module.rank}, {}};
    for (const AdapterPart& part : module.parts) start.slices.push_back({part.start_b, part.rows});
    tensors.push_back(std::move(start));
  }
}

Adapter Adapter::plain() const {
  const NoGrad off;
  Adapter copy(*this);
  AdapterConfig& config = copy.config_;
  if (config.start == AdapterConfig::Start::pissa) {
    // s (B A - B0 A0) = s [B, -B0] [A; A0]: twice the rank at the same s.
    const double alpha = config.rank_stabilized ? std::sqrt(2.0) : 2.0;
    config.rank *= 2;
    config.alpha *= alpha;
    for (auto& [pattern, rank] : config.rank_pattern) rank *= 2;
    for (auto& [pattern, value] : config.alpha_pattern) value *= alpha;
    for (AdapterModule& module : copy.modules_) {
      module.rank *= 2;
      module.a = ops::concat_rows({module.a.detach(), module.start_a});
      for (AdapterPart& part : module.parts)
        part.b = ops::concat_cols({part.b.detach(), ops::scale(part.start_b, -1)});
    }
  } else if (config.start == AdapterConfig::Start::adalora) {
    config.rank_pattern.clear();
    config.alpha_pattern.clear();
    for (AdapterModule& module : copy.modules_) {
      std::vector<int64_t> kept;
      for (int64_t i = 0; i < module.rank; ++i) {
        if (module.gates.data<float>()[i] != 0) kept.push_back(i);
      }
      if (kept.empty()) kept.push_back(0);  // a rank of nothing: PEFT has no rank 0
      const auto rank = static_cast<int64_t>(kept.size());
      Tensor a = ops::select_rows(module.a.detach(), kept);
      for (int64_t i = 0; i < rank; ++i) {
        const float gate = module.gates.data<float>()[kept[static_cast<size_t>(i)]];
        for (int64_t c = 0; c < module.inputs; ++c) a.data<float>()[i * module.inputs + c] *= gate;
      }
      for (AdapterPart& part : module.parts) {
        Tensor b = Tensor::empty({part.outputs, rank});
        for (int64_t row = 0; row < part.outputs; ++row) {
          for (int64_t i = 0; i < rank; ++i)
            b.data<float>()[row * rank + i] =
                part.b.data<float>()[row * module.rank + kept[static_cast<size_t>(i)]];
        }
        part.b = b;
      }
      module.a = a;
      module.rank = rank;
      std::string pattern = module.name;
      for (size_t dot = pattern.find('.'); dot != std::string::npos; dot = pattern.find('.', dot + 2))
        pattern.insert(dot, 1, '\\');
      config.rank_pattern.emplace_back(pattern, rank);
      const auto r = static_cast<double>(rank);
      config.alpha_pattern.emplace_back(pattern,
                                        module.scaling * (config.rank_stabilized ? std::sqrt(r) : r));
    }
  }
  config.start = AdapterConfig::Start::zero;
  for (AdapterModule& module : copy.modules_) {
    module.gates = module.start_a = Tensor();
    for (AdapterPart& part : module.parts) part.start_b = Tensor();
  }
  return copy;
}

std::shared_ptr<Adapter> Adapter::load(Model& model, const std::string& path, float scale) {
  std::shared_ptr<Adapter> adapter(new Adapter());
  adapter->control_->scale = scale;
  if (!fs::is_directory(path)) {
    adapter->load_gguf(model, path);
    return adapter;
  }
  const std::string config_path = (fs::path(path) / kConfigFile).string();
  require(fs::exists(config_path),
          "{}: expected an adapter (a directory with {}, or a GGUF adapter), found no {}", path, kConfigFile,
          kConfigFile);
  const Json json = load_json(config_path);
  AdapterConfig& config = adapter->config_ = read_adapter_config(json, config_path);
  const auto checkpoint = open_peft_weights(path);
  int64_t most_inputs = 0, most_outputs = 0;
  std::vector<std::string> all;
  for (AdapterModule& module : linear_modules(model, Naming::hugging_face)) {
    all.push_back(module.name);
    if (!config.is_target(module.name)) continue;
    most_inputs = std::max(most_inputs, module.inputs);
    most_outputs = std::max(most_outputs, module.outputs);
    module.rank = config.rank_of(module.name);
    module.scaling = config.scaling_of(module.name);
    module.of_inputs = config.kind == AdapterConfig::Kind::ia3 && config.is_feedforward(module.name);
    if (config.kind == AdapterConfig::Kind::lora) module.a = Tensor::empty({module.rank, module.inputs});
    if (config.kind == AdapterConfig::Kind::vera) module.a = Tensor::empty({module.rank});
    if (module.of_inputs) module.a = Tensor::empty({module.inputs});
    for (AdapterPart& part : module.parts) {
      if (config.kind == AdapterConfig::Kind::lora) part.b = Tensor::empty({part.outputs, module.rank});
      if (config.decomposed) part.magnitude = Tensor::empty({part.outputs});
      if (config.kind == AdapterConfig::Kind::vera ||
          (config.kind == AdapterConfig::Kind::ia3 && !module.of_inputs)) {
        part.factors = Tensor::empty({part.outputs});
      }
    }
    adapter->modules_.push_back(std::move(module));
  }
  require(!adapter->modules_.empty(),
          "{}: key 'target_modules': no linear layer of the model is a target; there are {}", config_path,
          fmt::join(all, ", "));
  if (config.kind == AdapterConfig::Kind::vera) {
    adapter->vera_a_ = Tensor::empty({config.rank, most_inputs});
    adapter->vera_b_ = Tensor::empty({most_outputs, config.rank});
  }
  adapter->take_saved(model);
  std::vector<FileTensor> tensors = adapter->file_tensors();
  read_all(*checkpoint, tensors);
  adapter->attach();
  return adapter;
}

void Adapter::load_gguf(Model& model, const std::string& path) {
  const auto checkpoint = open_checkpoint(path);
  const Metadata& metadata = checkpoint->metadata();
  require(metadata.string_or("general.type", "") == "adapter",
          "{}: expected a GGUF adapter (general.type 'adapter') or a PEFT directory, found {}", path,
          metadata.has("general.type") ? "type '" + metadata.string("general.type") + "'" : "a model");
  require(metadata.string_or("adapter.type", "") == "lora",
          "{}: key 'adapter.type': expected lora, found '{}'", path, metadata.string_or("adapter.type", ""));
  const Architecture* architecture = architecture_of(model);
  const std::string wanted(architecture != nullptr ? architecture->gguf : "");
  require(metadata.string("general.architecture") == wanted,
          "{}: key 'general.architecture': expected the model's, {}, found {}", path, wanted,
          metadata.string("general.architecture"));
  config_.alpha = metadata.number("adapter.lora.alpha");
  const auto ours = gguf_modules(model);
  std::vector<FileTensor> tensors;
  for (AdapterModule& module : linear_modules(model, Naming::hugging_face)) {
    const auto found = ours.find(module.parts[0].linear);
    if (found == ours.end() || !same_layers(module, found->second)) continue;
    const std::string name = found->second.name + ".weight";
    const TensorEntry* a = checkpoint->find(name + ".lora_a");
    if (a == nullptr) continue;
    require(a->shape.rank() == 2 && a->shape[0] > 0, "{}: tensor '{}': expected (rank, {}), found {}", path,
            a->name, module.inputs, a->shape.str());
    module.rank = a->shape[0];
    module.scaling = (config_.alpha != 0 ? config_.alpha : static_cast<double>(module.rank)) /
                     static_cast<double>(module.rank);
    module.a = Tensor::empty({module.rank, module.inputs});
    FileTensor b{name + ".lora_b", Shape{module.outputs, module.rank}, {}};
    for (size_t i = 0; i < module.parts.size(); ++i) {
      module.parts[i].b = Tensor::empty({module.parts[i].outputs, module.rank});
      b.slices.push_back({module.parts[i].b, found->second.parts[i].rows});
    }
    tensors.push_back({a->name, Shape{module.rank, module.inputs}, {{module.a, {}}}});
    tensors.push_back(std::move(b));
    config_.targets.push_back(module.name);
    config_.rank = module.rank;
    modules_.push_back(std::move(module));
  }
  for (const AdapterModule& module : modules_) {
    if (module.rank != config_.rank) config_.rank_pattern.emplace_back(module.name, module.rank);
  }
  if (config_.alpha == 0) config_.alpha = static_cast<double>(config_.rank);
  read_all(*checkpoint, tensors);
  attach();
}

void Adapter::write_tensors(const std::string& directory, std::vector<FileTensor> tensors) const {
  const bool transposed = std::any_of(modules_.begin(), modules_.end(),
                                      [](const AdapterModule& module) { return module.transposed; });
  std::unordered_map<std::string, FileTensor> by_name;
  std::vector<TensorEntry> entries;
  for (FileTensor& tensor : tensors) {
    entries.push_back({tensor.name, DType::f32, tensor.shape});
    by_name.emplace(tensor.name, std::move(tensor));
  }
  SafetensorsWriter writer((fs::path(directory) / "adapter_model.safetensors").string(), entries);
  for (const TensorEntry& entry : writer.entries())
    writer.write(entry.name, by_name.at(entry.name).collect());
  writer.finish();
  save_json((fs::path(directory) / kConfigFile).string(), peft_config(config_, transposed));
}

void Adapter::save_peft(const std::string& directory) const {
  const Adapter as_lora = plain();
  as_lora.write_tensors(directory, as_lora.file_tensors());
}

void Adapter::save_state(const std::string& directory) const {
  std::vector<FileTensor> tensors = file_tensors();
  add_start_tensors(tensors);
  write_tensors(directory, std::move(tensors));
}

void Adapter::restore_peft(const std::string& directory) {
  std::vector<FileTensor> tensors = file_tensors();
  add_start_tensors(tensors);
  read_all(*open_peft_weights(directory), tensors);
}

void Adapter::save_gguf(const std::string& path, Model& model) const {
  if (config_.start == AdapterConfig::Start::pissa || config_.start == AdapterConfig::Start::adalora)
    return plain().save_gguf(path, model);
  require(saved_.empty(), "{}: GGUF adapters hold no whole modules, found '{}'", path,
          saved_.empty() ? "" : saved_[0].name);
  require(config_.kind == AdapterConfig::Kind::lora && !config_.decomposed,
          "{}: GGUF adapters are LoRA: expected a LoRA adapter, found another kind", path);
  const Architecture* architecture = architecture_of(model);
  require(architecture != nullptr && !architecture->gguf.empty(), "{}: GGUF has no {}", path,
          model.info().architecture);
  const auto theirs = gguf_modules(model);
  // llama.cpp divides one alpha by each tensor's rank; what remains of a module's scaling goes into its B.
  const double alpha = modules_[0].scaling * static_cast<double>(modules_[0].rank);
  std::unordered_map<std::string, Tensor> tensors;
  std::vector<TensorEntry> entries;
  for (const AdapterModule& module : modules_) {
    const auto found = theirs.find(module.parts[0].linear);
    require(found != theirs.end() && same_layers(module, found->second),
            "{}: GGUF stores '{}' together with other layers; an adapter of it cannot be written", path,
            module.name);
    const std::string name = found->second.name + ".weight";
    FileTensor b{name + ".lora_b", Shape{module.outputs, module.rank}, {}};
    const auto factor = static_cast<float>(module.scaling * static_cast<double>(module.rank) / alpha);
    for (size_t i = 0; i < module.parts.size(); ++i) {
      const NoGrad off;
      const Tensor& own = module.parts[i].b;
      b.slices.push_back(
          {factor == 1 ? own.detach() : ops::scale(own.detach(), factor), found->second.parts[i].rows});
    }
    tensors[name + ".lora_a"] = module.a.detach();
    tensors[b.name] = b.collect();
    entries.push_back({name + ".lora_a", DType::f32, module.a.shape()});
    entries.push_back({b.name, DType::f32, b.shape});
  }
  Metadata metadata;
  metadata.set("general.architecture", std::string(architecture->gguf));
  metadata.set("general.type", std::string("adapter"));
  metadata.set("adapter.type", std::string("lora"));
  metadata.set("adapter.lora.alpha", static_cast<float>(alpha));
  write_gguf(path, entries, metadata, [&](const TensorEntry& entry) { return tensors.at(entry.name); });
}

}  // namespace qkv
