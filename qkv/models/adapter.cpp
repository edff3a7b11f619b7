#include "qkv/models/adapter.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <unordered_map>
#include <unordered_set>

#include "qkv/core/error.h"
#include "qkv/core/rng.h"
#include "qkv/models/stored_names.h"

namespace qkv {
namespace {

Tensor ones(int64_t n) {
  return Tensor::full({n}, 1.0f);
}

// Uniform in [-bound, bound): what PyTorch's Kaiming initialization comes to.
Tensor uniform(Shape shape, double bound, Rng rng) {
  Tensor values = Tensor::empty(shape);
  for (int64_t i = 0; i < values.elements(); ++i)
    values.data<float>()[i] = static_cast<float>(bound * (2 * rng.uniform_double() - 1));
  return values;
}

Tensor row_norms(const Tensor& matrix) {
  Tensor norms = row_squares(matrix);
  for (int64_t i = 0; i < norms.elements(); ++i) norms.data<float>()[i] = std::sqrt(norms.data<float>()[i]);
  return norms;
}

// Leaves a placeholder: a layer is never without a weight of its shape.
std::unique_ptr<Weight> take_weight(Linear& linear) {
  return linear.exchange_weight(std::make_unique<DenseWeight>(linear.weight().shape()));
}

std::string without_suffix(const std::string& name) {
  constexpr std::string_view suffix = ".weight";
  return name.ends_with(suffix) ? name.substr(0, name.size() - suffix.size()) : name;
}

}  // namespace

std::vector<AdapterModule> linear_modules(Model& model, Naming naming) {
  std::unordered_map<std::string, Linear*> linears;
  model.visit_linears("",
                      [&](const std::string& name, Linear& linear) { linears[name + ".weight"] = &linear; });
  std::vector<AdapterModule> modules;
  std::unordered_map<std::string, size_t> by_name;
  for (const WeightMapping& mapping : expand(model)) {
    const StoredTensor& stored = naming == Naming::gguf ? mapping.gguf : mapping.hf;
    const auto linear = linears.find(mapping.parameter);
    // Experts that are stacked in one tensor are no module of their own.
    if (linear == linears.end() || stored.name.empty() || stored.at.stacked) continue;
    const auto [place, is_new] = by_name.emplace(stored.name, modules.size());
    if (is_new) {
      AdapterModule module;
      module.name = without_suffix(stored.name);
      module.transposed = stored.at.transposed;
      module.inputs = mapping.shape.cols();
      module.outputs = stored.shape.elements() / module.inputs;
      modules.push_back(module);
    }
    AdapterPart part;
    part.linear = linear->second;
    part.outputs = mapping.shape.rows();
    part.rows = {stored.name, {}, stored.at};
    part.rows.at.transposed = false;
    part.rows.at.shape = {};
    modules[place->second].parts.push_back(part);
  }
  // A module of which only some rows are a linear layer here cannot be adapted.
  std::erase_if(modules, [](const AdapterModule& module) {
    int64_t rows = 0;
    for (const AdapterPart& part : module.parts) rows += part.outputs;
    return rows != module.outputs;
  });
  return modules;
}

std::shared_ptr<Adapter> Adapter::create(Model& model, const AdapterConfig& config, uint64_t seed) {
  std::shared_ptr<Adapter> adapter(new Adapter());
  adapter->config_ = config;
  std::vector<std::string> all;
  int64_t most_inputs = 0, most_outputs = 0;
  for (AdapterModule& module : linear_modules(model, Naming::hugging_face)) {
    all.push_back(module.name);
    if (!config.is_target(module.name)) continue;
    most_inputs = std::max(most_inputs, module.inputs);
    most_outputs = std::max(most_outputs, module.outputs);
    adapter->modules_.push_back(std::move(module));
  }
  require(!adapter->modules_.empty(), "adapter: no linear layer is a target; there are {}",
          fmt::join(all, ", "));
  adapter->take_saved(model);
  const bool pissa = config.start == AdapterConfig::Start::pissa,
             gated = config.start == AdapterConfig::Start::adalora;
  require(config.kind == AdapterConfig::Kind::lora || config.start == AdapterConfig::Start::zero,
          "adapter: only LoRA begins with singular vectors or allocates ranks");
  if (config.kind == AdapterConfig::Kind::vera) {
    adapter->vera_a_ =
        uniform({config.rank, most_inputs}, std::sqrt(6.0 / static_cast<double>(most_inputs)), Rng(seed, 0));
    adapter->vera_b_ =
        uniform({most_outputs, config.rank}, std::sqrt(6.0 / static_cast<double>(config.rank)), Rng(seed, 1));
  }
  uint64_t stream = 2;
  for (AdapterModule& module : adapter->modules_) {
    module.rank = config.rank_of(module.name);
    module.scaling = config.scaling_of(module.name);
    module.of_inputs = config.kind == AdapterConfig::Kind::ia3 && config.is_feedforward(module.name);
    switch (config.kind) {
      case AdapterConfig::Kind::lora:
        // AdaLoRA's rows and columns have a length of about 1.
        module.a =
            uniform({module.rank, module.inputs},
                    std::sqrt((gated ? 3.0 : 1.0) / static_cast<double>(module.inputs)), Rng(seed, stream++));
        if (pissa) module.start_a = Tensor::zeros(module.a.shape());
        if (gated) module.gates = Tensor::zeros({module.rank});
        break;
      case AdapterConfig::Kind::vera:
        module.a = Tensor::full({module.rank}, static_cast<float>(config.initial_d));
        break;
      case AdapterConfig::Kind::ia3:
        if (module.of_inputs) module.a = ones(module.inputs);
        break;
    }
    for (AdapterPart& part : module.parts) {
      if (config.kind == AdapterConfig::Kind::lora) part.b = Tensor::zeros({part.outputs, module.rank});
      if (pissa) part.start_b = Tensor::zeros(part.b.shape());
      // The gates are zero: both sides may be anything.
      if (gated)
        part.b =
            uniform(part.b.shape(), std::sqrt(3 / static_cast<double>(module.outputs)), Rng(seed, stream++));
      if (config.decomposed) part.magnitude = row_norms(part.linear->weight().dequantize());
      if (config.kind == AdapterConfig::Kind::vera) part.factors = Tensor::zeros({part.outputs});
      if (config.kind == AdapterConfig::Kind::ia3 && !module.of_inputs) part.factors = ones(part.outputs);
    }
  }
  adapter->attach();
  adapter->set_trainable(true);
  return adapter;
}

void Adapter::attach() {
  uint64_t index = 0;
  for (AdapterModule& module : modules_) {
    for (AdapterPart& part : module.parts) {
      Linear& linear = *part.linear;
      std::unique_ptr<Weight> base = take_weight(linear), adapted;
      switch (config_.kind) {
        case AdapterConfig::Kind::lora:
          adapted = std::make_unique<LoraWeight>(
              std::move(base),
              LoraTensors{module.a, part.b, part.magnitude,
                          part.start_b.defined() ? module.start_a : Tensor(), part.start_b, module.gates,
                          static_cast<float>(module.scaling), index},
              control_);
          break;
        case AdapterConfig::Kind::ia3:
          adapted = std::make_unique<Ia3Weight>(std::move(base), module.of_inputs ? module.a : part.factors,
                                                module.of_inputs, control_);
          break;
        case AdapterConfig::Kind::vera: {
          // Each layer takes the first columns and rows of the shared matrices that it needs.
          const Tensor a = ops::slice_cols(vera_a_, 0, module.inputs),
                       all_rows = vera_b_.row_view(0, module.outputs);
          Tensor b = Tensor::empty({part.outputs, module.rank});
          for (int64_t row = 0; row < part.outputs; ++row) {
            const int64_t stored = stored_row(part.rows.at, row, part.outputs);
            std::copy_n(all_rows.data<float>() + stored * module.rank, module.rank,
                        b.data<float>() + row * module.rank);
          }
          adapted = std::make_unique<VeraWeight>(std::move(base),
                                                 VeraTensors{a, b, module.a, part.factors, index}, control_);
          break;
        }
      }
      linear.set_weight(std::move(adapted));
      ++index;
    }
  }
}

void Adapter::take_saved(Model& model) {
  if (config_.modules_to_save.empty()) return;
  const std::vector<WeightMapping> mappings = expand(model);
  std::vector<std::string> all;
  size_t index = 0;
  model.visit("", [&](const std::string&, Tensor& parameter) {
    const StoredTensor& place = mappings[index++].hf;
    const std::string module = place.name.substr(0, place.name.rfind('.'));
    if (all.empty() || all.back() != module) all.push_back(module);
    if (!config_.is_saved(module)) return;
    // A copy of its own: what is tuned may be a mapped file in any type.
    const Tensor values = parameter.to(DType::f32);
    saved_.push_back(
        {place.name, &parameter, parameter, values.same_storage(parameter) ? values.clone() : values, place});
  });
  for (const std::string& name : config_.modules_to_save) {
    AdapterConfig one;
    one.modules_to_save = {name};
    require(
        std::any_of(all.begin(), all.end(), [&](const std::string& module) { return one.is_saved(module); }),
        "adapter: modules to save: the model has no module '{}'{}", name, suggestion(name, all));
  }
  for (SavedParameter& saved : saved_) *saved.parameter = saved.trained;
}

void Adapter::set_enabled(bool on) {
  control_->enabled = on;
  for (SavedParameter& saved : saved_) *saved.parameter = on ? saved.trained : saved.original;
}

void Adapter::visit(const std::string& prefix, const ParameterVisitor& visitor) {
  const bool lora = config_.kind == AdapterConfig::Kind::lora,
             vera = config_.kind == AdapterConfig::Kind::vera;
  for (AdapterModule& module : modules_) {
    const std::string name = prefix + module.name;
    if (module.a.defined())
      visitor(name + (lora ? ".lora_A.weight" : vera ? ".vera_lambda_d" : ".ia3_l"), module.a);
    if (module.gates.defined()) visitor(name + ".lora_E", module.gates);
    for (size_t i = 0; i < module.parts.size(); ++i) {
      AdapterPart& part = module.parts[i];
      const std::string number = module.parts.size() > 1 ? "." + std::to_string(i) : "";
      if (part.b.defined()) visitor(name + ".lora_B" + number + ".weight", part.b);
      if (part.magnitude.defined()) visitor(name + ".lora_magnitude_vector" + number, part.magnitude);
      if (part.factors.defined()) visitor(name + (vera ? ".vera_lambda_b" : ".ia3_l") + number, part.factors);
    }
  }
  for (size_t i = 0; i < saved_.size(); ++i) {
    const bool parts = (i > 0 && saved_[i - 1].name == saved_[i].name) ||
                       (i + 1 < saved_.size() && saved_[i + 1].name == saved_[i].name);
    visitor(prefix + saved_[i].name + (parts ? "." + std::to_string(i) : ""), saved_[i].trained);
  }
}

int64_t Adapter::parameter_count() {
  int64_t count = 0;
  visit("", [&](const std::string&, Tensor& tensor) { count += tensor.elements(); });
  return count;
}

void Adapter::set_trainable(bool trainable) {
  visit("", [&](const std::string&, Tensor& tensor) { tensor.set_requires_grad(trainable); });
}

AdapterRequest parse_adapter_request(const std::string& text) {
  AdapterRequest request{text};
  const size_t equals = text.rfind('=');
  if (equals == std::string::npos || std::filesystem::exists(text)) return request;
  const std::string number = text.substr(equals + 1);
  char* end = nullptr;
  request.scale = std::strtof(number.c_str(), &end);
  require(!number.empty() && *end == '\0' && std::isfinite(request.scale),
          "--adapter: expected PATH or PATH=SCALE, found '{}'", text);
  request.path = text.substr(0, equals);
  return request;
}

void merge_adapters(Model& model) {
  model.visit_linears("", [](const std::string&, Linear& linear) {
    if (dynamic_cast<const AdaptedWeight*>(&linear.weight()) == nullptr) return;
    Tensor bias = linear.bias();
    const Tensor matrix = linear.weight().dequantize();
    // From the outermost adapter inwards: each saw the bias its base had added.
    std::vector<std::unique_ptr<Weight>> outer;
    std::unique_ptr<Weight> weight = take_weight(linear);
    while (auto* adapted = dynamic_cast<AdaptedWeight*>(weight.get())) {
      std::unique_ptr<Weight> base = adapted->release_base();
      outer.push_back(std::move(weight));
      weight = std::move(base);
    }
    for (auto it = outer.rbegin(); it != outer.rend(); ++it)
      bias = static_cast<AdaptedWeight&>(**it).merged_bias(bias);
    linear.set_weight(std::make_unique<DenseWeight>(matrix));
    if (bias.defined()) linear.set_bias(bias);
  });
}

}  // namespace qkv
