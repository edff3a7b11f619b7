#include "qkv/compress/gguf_rounding.h"

#include <algorithm>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "qkv/compress/produced_checkpoint.h"
#include "qkv/compress/quantize.h"
#include "qkv/compress/stored_model.h"
#include "qkv/core/error.h"
#include "qkv/models/convert.h"
#include "qkv/models/stored_values.h"
#include "qkv/quant/block_rounding.h"

namespace qkv {
namespace {

QuantizePlan checked_plan(const Checkpoint& source, const std::string& output,
                          const WeightQuantizeOptions& options) {
  const RoundingOptions& rounding = options.rounding;
  require(rounding.method == WeightMethod::gptq,
          "{}: expected the method gptq for a .gguf file, found {}; other methods go to directories or .qkv "
          "files",
          output, weight_method_name(rounding.method));
  const DType base = traits(options.blocks.type).base;
  require(
      can_compensate(base),
      "gptq: expected a file type whose weights have codes of their own, found {}; the nearest type is {}",
      traits(options.blocks.type).name, name(nearest_compensated(base)));
  return plan_quantization(source, options.blocks);
}

class GgufRounder {
 public:
  GgufRounder(const Checkpoint& source, const std::string& output, const WeightQuantizeOptions& options)
      : options_(options),
        plan_(checked_plan(source, output, options)),
        stored_(source),
        groups_(group_by_tensor(stored_.mappings(), StoredNames(Naming::gguf))) {
    find_targets();
    const auto tokenizer = stored_.tokenizer();
    const TokenSequences sequences =
        calibration_sequences(stored_.model().info(), *tokenizer, options.text, options.calibration);
    WalkOptions walk;
    walk.sequential = true;
    walk.batch_tokens = options.calibration.batch_tokens;
    walk_ = std::make_unique<LayerWalk>(stored_.model(), sequences, walk);
  }

  WeightQuantizeReport write(const std::string& output) {
    const Checkpoint& source = stored_.source();
    for (const auto& entry : source.entries()) report_.bytes_before += entry.bytes;
    std::vector<ProducedTensor> tensors;
    for (size_t i = 0; i < plan_.tensors.size(); ++i) {
      const QuantizedTensor& planned = plan_.tensors[i];
      tensors.push_back(produced_tensor(
          planned.name, planned.to, planned.shape, [this, i] { return produced(i); },
          [this, i] { ready_.erase(plan_.tensors[i].name); }));
    }
    const ProducedCheckpoint result(source.path(), std::move(tensors), plan_.conversion.files,
                                    plan_.conversion.metadata);
    report_.bytes = result.total_bytes();
    const ConvertReport written = convert_checkpoint(result, output);
    report_.notes.insert(report_.notes.end(), written.notes.begin(), written.notes.end());
    return std::move(report_);
  }

 private:
  // A stored matrix whose rows are those of linear layers.
  struct Target {
    const StoredGroup* group;
    DType type;
    int64_t layer;
  };

  void find_targets() {
    std::map<std::string, Linear*> linears;
    stored_.model().visit_linears("", [&](const std::string& name, Linear& linear) {
      if (layer_of(name) >= 0) linears[name + ".weight"] = &linear;
    });
    std::map<std::string, const StoredGroup*> by_name;
    for (const auto& group : groups_) by_name[group.name] = &group;
    for (const auto& tensor : plan_.tensors) {
      const auto found = by_name.find(tensor.name);
      if (found == by_name.end() || !is_block(tensor.to)) continue;
      const std::vector<const WeightMapping*>& parts = found->second->parts;
      const bool linear = std::all_of(parts.begin(), parts.end(), [&](const WeightMapping* part) {
        return linears.contains(part->parameter) && !part->gguf.at.transposed;
      });
      if (!linear) continue;
      if (!can_compensate(tensor.to)) {
        ++report_.kept;
        report_.notes.push_back(
            fmt::format("'{}' is rounded without compensation: {} has no code for every weight", tensor.name,
                        name(tensor.to)));
        continue;
      }
      ++report_.quantized;
      targets_[tensor.name] = {found->second, tensor.to, layer_of(parts[0]->parameter)};
      for (const WeightMapping* part : parts) {
        const std::string linear_name =
            part->parameter.substr(0, part->parameter.size() - std::string_view(".weight").size());
        types_[linear_name] = tensor.to;
        linears_[linear_name] = linears.at(part->parameter);
      }
    }
    require(report_.quantized > 0, "{}: expected a matrix of a linear layer that {} can hold, found none",
            stored_.source().path(), traits(options_.blocks.type).name);
  }

  Tensor produced(size_t i) {
    const QuantizedTensor& planned = plan_.tensors[i];
    if (const auto target = targets_.find(planned.name); target != targets_.end()) {
      while (!walk_->is_done() && static_cast<int64_t>(walk_->layer()) <= target->second.layer) next_layer();
      return ready_.at(planned.name);
    }
    const Tensor values = make_tensor(stored_.source(), plan_.conversion.tensors[i]);
    if (!is_block(planned.to) || planned.to == planned.from) return values.to(planned.to);
    std::vector<float> weights;
    if (planned.weighted) weights = options_.blocks.importance->matrices.at(planned.name).means();
    return quantize_tensor(values, planned.to, planned.weighted ? &weights : nullptr,
                           fmt::format("{}: tensor '{}'", stored_.source().path(), planned.name));
  }

  void next_layer() {
    const auto layer = static_cast<int64_t>(walk_->layer());
    std::map<std::string, Tensor> rounded;
    walk_->step([&](std::vector<SharedInput>& inputs) {
      for (auto& input : inputs) {
        for (size_t i = 0; i < input.names.size(); ++i) {
          if (types_.contains(input.names[i]))
            rounded[input.names[i]] = round_linear(input.names[i], *input.linears[i], input.statistics);
        }
      }
    });
    for (const auto& [name, target] : targets_) {
      if (target.layer == layer) ready_[name] = assemble(name, target, rounded);
    }
    for (const auto& [name, blocks] : rounded)  // nobody needs them again
      linears_.at(name)->set_weight(std::make_unique<DenseWeight>(linears_.at(name)->weight().shape()));
    if (options_.progress)
      options_.progress(static_cast<size_t>(layer) + 1, static_cast<size_t>(stored_.model().info().layers));
  }

  Tensor round_linear(const std::string& name, Linear& linear, const InputStatistics& statistics) {
    const Tensor weight = matrix_of(linear), &products = statistics.products();
    require_finite(weight, name);
    const Tensor blocks = gptq_blocks(
        weight, products, {types_.at(name), options_.rounding.act_order, options_.rounding.damping}, name);
    const Tensor values = blocks.to(DType::f32);
    const double error = output_error(weight, values, products),
                 all = output_error(weight, Tensor::zeros(weight.shape()), products);
    report_.layers.push_back({name, all > 0 ? error / all : 0});
    replace_matrix(linear, values);
    return blocks;
  }

  // Rows of the linear layers in the order of the stored tensor.
  Tensor assemble(const std::string& name, const Target& target,
                  const std::map<std::string, Tensor>& rounded) const {
    Tensor whole = Tensor::empty(target.group->shape, target.type);
    const auto row_bytes = static_cast<int64_t>(tensor_bytes(target.type, {whole.shape().cols()}));
    int64_t rows_done = 0;
    for (const WeightMapping* part : target.group->parts) {
      const std::string linear =
          part->parameter.substr(0, part->parameter.size() - std::string_view(".weight").size());
      const Tensor& blocks = rounded.at(linear);
      for (int64_t row = 0; row < blocks.rows(); ++row)
        std::copy_n(blocks.raw() + row * row_bytes, row_bytes,
                    whole.raw() + stored_row(part->gguf.at, row, blocks.rows()) * row_bytes);
      rows_done += blocks.rows();
    }
    require(rows_done == whole.rows(), "'{}': expected linear layers with {} rows, found {}", name,
            whole.rows(), rows_done);
    return whole;
  }

  const WeightQuantizeOptions& options_;
  QuantizePlan plan_;
  StoredModel stored_;
  std::vector<StoredGroup> groups_;
  std::map<std::string, Target> targets_;   // by GGUF's tensor name
  std::map<std::string, DType> types_;      // of linear layers, "blocks.0.attn.q"
  std::map<std::string, Linear*> linears_;  // the same
  std::unique_ptr<LayerWalk> walk_;
  std::map<std::string, Tensor> ready_;
  WeightQuantizeReport report_;
};

}  // namespace

WeightQuantizeReport round_to_gguf(const Checkpoint& source, const std::string& output,
                                   const WeightQuantizeOptions& options) {
  return GgufRounder(source, output, options).write(output);
}

}  // namespace qkv
