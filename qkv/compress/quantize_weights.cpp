#include "qkv/compress/quantize_weights.h"

#include <algorithm>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "qkv/compress/gguf_rounding.h"
#include "qkv/compress/layer_rounding.h"
#include "qkv/compress/produced_checkpoint.h"
#include "qkv/compress/stored_model.h"
#include "qkv/core/error.h"
#include "qkv/models/convert.h"
#include "qkv/models/stored_values.h"

namespace qkv {
namespace {

// Small, and what they decide is not smooth: which expert, how far a state decays.
bool stays(const std::string& linear) {
  return linear.ends_with(".router") || linear.ends_with(".shared_gate") || linear.ends_with(".ssm.dt") ||
         linear.ends_with(".ssm.dt_in");
}

std::string without_weight(const std::string& name) {
  constexpr std::string_view kEnding = ".weight";
  return name.ends_with(kEnding) ? name.substr(0, name.size() - kEnding.size()) : name;
}

// The matrix that a stored tensor is, outputs first.
Shape matrix_shape(const StoredGroup& group, bool transposed) {
  return transposed ? Shape{group.shape[1], group.shape[0]} : group.shape;
}

class WeightQuantizer {
 public:
  WeightQuantizer(const Checkpoint& source, const WeightQuantizeOptions& options)
      : options_(options), stored_(source) {
    const RoundingOptions& rounding = options.rounding;
    format_ = matrix_format(rounding);
    for (const auto& traits : weight_methods())
      is_calibrated_ = is_calibrated_ || (traits.method == rounding.method && traits.calibrated);
    stored_.model().visit_linears("", [&](const std::string& name, Linear& linear) {
      if (layer_of(name) >= 0 && !stays(name)) linears_[name] = &linear;
    });
    if (is_calibrated_) {
      const auto tokenizer = stored_.tokenizer();
      const TokenSequences sequences =
          calibration_sequences(stored_.model().info(), *tokenizer, options.text, options.calibration);
      WalkOptions walk;
      walk.sequential = rounding.method == WeightMethod::gptq;
      walk.batch_tokens = options.calibration.batch_tokens;
      walk_ = std::make_unique<LayerWalk>(stored_.model(), sequences, walk);
    }
  }

  WeightQuantizeReport write(const std::string& output) {
    for (const auto& entry : stored_.source().entries()) report_.bytes_before += entry.bytes;
    const ProducedCheckpoint result = plan();
    report_.bytes = result.total_bytes();
    const ConvertReport written = convert_checkpoint(result, output);
    report_.notes.insert(report_.notes.end(), written.notes.begin(), written.notes.end());
    return std::move(report_);
  }

 private:
  // One stored matrix that is quantized.
  struct Target {
    const StoredGroup* group;
    Shape shape;  // outputs, inputs
    int64_t layer;
    PackedLayout layout;
    std::vector<std::string> names;  // of the stored parts
  };

  // Why a group is not quantized; nothing if it is no matrix of linear layers.
  std::optional<std::string> refusal(const StoredGroup& group) const {
    int64_t linears = 0;
    for (const WeightMapping* part : group.parts)
      linears += linears_.contains(without_weight(part->parameter)) ? 1 : 0;
    const bool any_weight = linears > 0 && group.parts[0]->parameter.ends_with(".weight");
    if (!any_weight) return std::nullopt;
    if (linears != static_cast<int64_t>(group.parts.size()) || group.shape.rank() != 2)
      return "it is no plain matrix of linear layers";
    const Shape shape = matrix_shape(group, group.parts[0]->hf.at.transposed);
    return format_.refusal(shape[0], shape[1]);
  }

  // Adds the tensors of a group that is quantized; false if it is not.
  bool add_target(const StoredGroup& group, const std::string& name, std::vector<ProducedTensor>& tensors) {
    const std::optional<std::string> reason = refusal(group);
    if (!reason) return false;
    const std::string module = without_weight(name);
    if (!reason->empty()) {
      ++report_.kept;
      kept_.push_back(module);
      report_.notes.push_back(fmt::format("'{}' stays as it is: {}", name, *reason));
      return false;
    }
    ++report_.quantized;
    const auto target = std::make_shared<Target>();
    target->group = &group;
    target->layer = layer_of(group.parts[0]->parameter);
    target->shape = matrix_shape(group, group.parts[0]->hf.at.transposed);
    target->layout = format_.layout(target->shape[0], target->shape[1]);
    for (const auto& part : target->layout) {
      const std::string part_name = module + "." + part.name;
      target->names.push_back(part_name);
      tensors.push_back(produced_tensor(
          part_name, part.type, part.shape,
          [this, target, part_name] { return produced(*target, part_name); },
          [this, part_name] { ready_.erase(part_name); }));
    }
    targets_.push_back(target);
    return true;
  }

  ProducedCheckpoint plan() {
    std::vector<ProducedTensor> tensors;
    for (const auto& group : stored_.groups()) {
      const std::string name = stored_.name_of(group);
      if (add_target(group, name, tensors)) continue;
      const DType type = stored_.type_of(group);
      tensors.push_back(produced_tensor(name, type, group.shape, [this, &group, type] {
        finish_layer(layer_of(group.parts[0]->parameter));
        return stored_.make(group, type);
      }));
    }
    require(report_.quantized > 0, "{}: expected a matrix that can be quantized so, found none ({})",
            stored_.source().path(), report_.notes.empty() ? "no linear layers" : report_.notes[0]);
    HfFiles files = stored_.files();
    Json config = parse_json(files.at("config.json"), "config.json");
    config["quantization_config"] = format_.config(kept_);
    files["config.json"] = dump_json(config, 2) + "\n";
    return ProducedCheckpoint(stored_.source().path(), std::move(tensors), std::move(files));
  }

  // A part of a target, made now if it is not there yet.
  Tensor produced(const Target& target, const std::string& part) {
    if (is_calibrated_) finish_layer(target.layer);
    if (!ready_.contains(part)) round_values(target);
    return ready_.at(part);
  }

  void keep(const Target& target, std::vector<Tensor> parts) {
    for (size_t i = 0; i < parts.size(); ++i) ready_[target.names[i]] = std::move(parts[i]);
  }

  // Calibrated methods: everything up to this layer.
  void finish_layer(int64_t layer) {
    if (!is_calibrated_ || layer < 0) return;
    while (!walk_->is_done() && static_cast<int64_t>(walk_->layer()) <= layer) next_layer();
  }

  void next_layer() {
    const size_t layer = walk_->layer();
    std::set<std::string> wanted;
    for (const auto& target : targets_) {
      if (target->layer != static_cast<int64_t>(layer)) continue;
      for (const WeightMapping* part : target->group->parts) wanted.insert(without_weight(part->parameter));
    }
    std::map<std::string, RoundedMatrix> rounded;
    walk_->step([&](std::vector<SharedInput>& inputs) {
      rounded.merge(round_layer(stored_.model(), inputs, options_.rounding, *format_.scheme,
                                [&](const std::string& name) { return wanted.contains(name); }));
    });
    for (const auto& target : targets_) {
      if (target->layer == static_cast<int64_t>(layer))
        keep(*target, format_.pack_codes(assemble(*target, rounded)));
    }
    for (const auto& [name, matrix] : rounded) {
      report_.layers.push_back({name, matrix.relative_error});
      // Nobody needs them again.
      linears_.at(name)->set_weight(std::make_unique<DenseWeight>(linears_.at(name)->weight().shape()));
    }
    stored_.mark_changed();
    if (options_.progress) options_.progress(layer + 1, static_cast<size_t>(stored_.model().info().layers));
  }

  // Rows of the parameters in the order of the stored matrix. Which column is in which group is the same for
  // all, since they read the same input.
  CodedMatrix assemble(const Target& target, std::map<std::string, RoundedMatrix>& rounded) const {
    CodedMatrix whole(target.shape[0], target.shape[1], *format_.scheme);
    whole.group_of = rounded.at(without_weight(target.group->parts[0]->parameter)).codes.group_of;
    const auto columns = static_cast<size_t>(whole.columns), groups = static_cast<size_t>(whole.groups);
    for (const WeightMapping* part : target.group->parts) {
      const CodedMatrix& codes = rounded.at(without_weight(part->parameter)).codes;
      require(codes.group_of == whole.group_of,
              "{}: expected the same order of inputs in all parts of a fused matrix", target.group->name);
      for (int64_t row = 0; row < codes.rows; ++row) {
        const auto from = static_cast<size_t>(row),
                   to = static_cast<size_t>(stored_row(part->hf.at, row, codes.rows));
        std::copy_n(codes.codes.begin() + static_cast<std::ptrdiff_t>(from * columns), columns,
                    whole.codes.begin() + static_cast<std::ptrdiff_t>(to * columns));
        std::copy_n(codes.scales.begin() + static_cast<std::ptrdiff_t>(from * groups), groups,
                    whole.scales.begin() + static_cast<std::ptrdiff_t>(to * groups));
        std::copy_n(codes.zeros.begin() + static_cast<std::ptrdiff_t>(from * groups), groups,
                    whole.zeros.begin() + static_cast<std::ptrdiff_t>(to * groups));
      }
    }
    return whole;
  }

  // Methods without calibration: the whole stored matrix, rows in its own order.
  void round_values(const Target& target) {
    Tensor weight = Tensor::empty(target.shape);
    for (const WeightMapping* part : target.group->parts) {
      const Tensor values = matrix_of(*linears_.at(without_weight(part->parameter)));
      const int64_t rows = values.rows(), columns = values.cols();
      for (int64_t row = 0; row < rows; ++row)
        std::copy_n(values.data<float>() + row * columns, columns,
                    weight.data<float>() + stored_row(part->hf.at, row, rows) * columns);
    }
    require_finite(weight, target.group->name);
    if (!format_.scheme) return keep(target, format_.pack_values(weight));
    const CodedMatrix codes = round_to_nearest(weight, *format_.scheme);
    const Tensor values = codes.dequantize();
    double error = 0, all = 0;
    for (int64_t i = 0; i < weight.elements(); ++i) {
      const double w = weight.data<float>()[i], difference = w - values.data<float>()[i];
      error += difference * difference;
      all += w * w;
    }
    report_.layers.push_back({without_weight(target.group->parts[0]->parameter), all > 0 ? error / all : 0});
    keep(target, format_.pack_codes(codes));
  }

  WeightQuantizeOptions options_;
  bool is_calibrated_ = false;
  StoredModel stored_;
  MatrixFormat format_;
  std::map<std::string, Linear*> linears_;  // those that can be quantized
  std::unique_ptr<LayerWalk> walk_;
  std::vector<std::shared_ptr<Target>> targets_;
  std::map<std::string, Tensor> ready_;
  std::vector<std::string> kept_;
  WeightQuantizeReport report_;
};

}  // namespace

WeightQuantizeReport quantize_weights(const std::string& input, const std::string& output,
                                      const WeightQuantizeOptions& options) {
  const Container container = container_of(output);
  require(container == Container::huggingface || container == Container::qkv || container == Container::gguf,
          "{}: expected a directory, a .qkv or a .gguf file, found {}", output, container_name(container));
  const auto source = open_checkpoint(input);
  if (container == Container::gguf) return round_to_gguf(*source, output, options);
  return WeightQuantizer(*source, options).write(output);
}

}  // namespace qkv
