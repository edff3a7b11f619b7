#include <nlohmann/json.hpp>

#include "qkv/compress/produced_checkpoint.h"
#include "qkv/compress/prune.h"
#include "qkv/compress/stored_model.h"
#include "qkv/core/error.h"
#include "qkv/models/convert.h"
#include "qkv/quant/uniform.h"

namespace qkv {
namespace {

constexpr std::pair<PruneMethod, std::string_view> kMethods[] = {{PruneMethod::magnitude, "magnitude"},
                                                                 {PruneMethod::wanda, "wanda"},
                                                                 {PruneMethod::sparsegpt, "sparsegpt"}};

bool is_pruned(const std::string& linear) {
  return layer_of(linear) >= 0 && !linear.ends_with(".router") && !linear.ends_with(".shared_gate");
}

Tensor pruned(const Tensor& weight, const std::string& name, const InputStatistics* inputs,
              const PruneOptions& options) {
  require_finite(weight, name + ".weight");
  switch (options.method) {
    case PruneMethod::magnitude:
      return prune_by_magnitude(weight, options.pattern);
    case PruneMethod::wanda:
      return prune_wanda(weight, *inputs, options.pattern);
    case PruneMethod::sparsegpt:
      return prune_sparsegpt(weight, *inputs, options.pattern, options.damping, name);
  }
  return weight;
}

// In the type that will be written, so that whoever sees the layer next sees what is stored.
void prune_linear(Linear& linear, const std::string& name, const InputStatistics* inputs,
                  const PruneOptions& options, DType type, PruneReport& report) {
  const Tensor values = pruned(matrix_of(linear), name, inputs, options);
  report.tensors.push_back({name + ".weight", values.shape(), sparsity_of(values)});
  replace_matrix(linear, values.to(type));
}

}  // namespace

PruneMethod prune_method_from_name(const std::string& name) {
  std::vector<std::string> names;
  for (const auto& [method, of] : kMethods) {
    if (of == name) return method;
    names.emplace_back(of);
  }
  fail("method: expected one of {}; found '{}'{}", fmt::join(names, ", "), name, suggestion(name, names));
}

PruneReport prune_weights(const std::string& input, const std::string& output, const PruneOptions& options) {
  options.pattern.require_valid();
  const auto source = open_checkpoint(input);
  StoredModel stored(*source);
  Decoder& model = stored.model();
  PruneReport report;
  report.bytes_before = source->total_bytes();
  report.parameters_before = report.parameters = model.parameter_count();
  std::unordered_map<std::string, DType> types;
  for (const auto& group : stored.groups())
    for (const WeightMapping* part : group.parts) types[part->parameter] = stored.type_of(group);

  const auto layers = static_cast<size_t>(model.info().layers);
  const auto prune = [&](Linear& linear, const std::string& name, const InputStatistics* inputs) {
    if (is_pruned(name)) prune_linear(linear, name, inputs, options, types.at(name + ".weight"), report);
  };
  if (options.method == PruneMethod::magnitude) {
    model.visit_linears("", [&](const std::string& name, Linear& linear) { prune(linear, name, nullptr); });
  } else {
    const auto tokenizer = stored.tokenizer();
    const TokenSequences sequences =
        calibration_sequences(model.info(), *tokenizer, options.text, options.calibration);
    LayerWalk walk(model, sequences,
                   {.with_products = options.method == PruneMethod::sparsegpt,
                    .batch_tokens = options.calibration.batch_tokens});
    while (!walk.is_done()) {
      walk.step([&](std::vector<SharedInput>& inputs) {
        for (auto& shared : inputs)
          for (size_t i = 0; i < shared.names.size(); ++i)
            prune(*shared.linears[i], shared.names[i], &shared.statistics);
      });
      if (options.progress) options.progress(walk.layer(), layers);
    }
  }
  stored.mark_changed();

  std::vector<ProducedTensor> tensors;
  for (const auto& group : stored.groups()) {
    const DType type = stored.type_of(group);
    tensors.push_back(produced_tensor(stored.name_of(group), type, group.shape,
                                      [&stored, &group, type] { return stored.make(group, type); }));
  }
  const ProducedCheckpoint result(source->path(), std::move(tensors), stored.files());
  report.bytes = result.total_bytes();
  report.heads = model.info().heads;
  report.kv_heads = model.info().kv_heads;
  report.hidden = model.info().hidden;
  report.layers = model.info().layers;
  report.notes = convert_checkpoint(result, output).notes;
  return report;
}

}  // namespace qkv
