#include "qkv/compress/analysis.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>

#include "qkv/compress/file_types.h"
#include "qkv/compress/stored_model.h"
#include "qkv/core/error.h"
#include "qkv/core/interrupt.h"
#include "qkv/models/registry.h"
#include "qkv/models/stored_values.h"
#include "qkv/quant/quantize.h"
#include "qkv/tensor/convert.h"

namespace qkv {
namespace {

constexpr int64_t kSlab = int64_t{1} << 22;  // elements of a matrix rounded together
constexpr int64_t kShortestRow = 32;         // of what is worth a block type
constexpr std::string_view kWeight = ".weight";

// Which parameters of the model lie in a tensor; nothing for models that this program does not know.
class ParameterMap {
 public:
  explicit ParameterMap(const Checkpoint& checkpoint) {
    if (!has_model_config(checkpoint)) return;
    try {
      const ModelConfig config = model_config(checkpoint);
      const auto model = make_model(*config.config, config.where);
      mappings_ = expand(*model);
      const StoredNames names(checkpoint, mappings_);
      for (const auto& group : group_by_tensor(mappings_, names)) {
        for (const WeightMapping* part : group.parts)
          parts_[names.actual(group.name)].push_back({part, &names.place(*part)});
      }
    } catch (const Error&) {  // statistics need no model
      parts_.clear();
    }
  }

  struct Part {
    const WeightMapping* mapping;
    const StoredTensor* place;
  };
  // Null for a tensor that is no parameter.
  const std::vector<Part>* find(const std::string& tensor) const {
    const auto found = parts_.find(tensor);
    return found == parts_.end() ? nullptr : &found->second;
  }

 private:
  std::vector<WeightMapping> mappings_;
  std::map<std::string, std::vector<Part>> parts_;
};

// What calibration found out about one linear layer's matrix.
struct Calibrated {
  std::vector<double> squares;  // of the inputs' columns
  std::vector<float> largest;
  int64_t rows = 0;
  std::vector<RoundingError> errors;  // by form, NaN where a form does not fit

  void add_inputs(const InputStatistics& inputs) {
    squares.resize(inputs.squares().size());
    largest.resize(squares.size());
    for (size_t i = 0; i < squares.size(); ++i) {
      squares[i] += inputs.squares()[i];
      largest[i] = std::max(largest[i], inputs.largest_magnitudes()[i]);
    }
    rows += inputs.rows();
  }
};

using CalibratedByParameter = std::map<std::string, Calibrated>;

CalibratedByParameter calibrate(const Checkpoint& checkpoint, const AnalysisOptions& options) {
  CalibratedByParameter result;
  StoredModel stored(checkpoint);
  Decoder& model = stored.model();
  const TokenSequences sequences =
      calibration_sequences(model.info(), *stored.tokenizer(), options.text, options.calibration);
  LayerWalk walk(model, sequences,
                 {.with_products = !options.forms.empty(), .batch_tokens = options.calibration.batch_tokens});
  const auto look = [&](const SharedInput& input) {
    const InputStatistics& inputs = input.statistics;
    const bool seen = inputs.rows() > 0;  // no token may have chosen an expert
    std::vector<float> importance(inputs.squares().begin(), inputs.squares().end());
    const bool weighted = std::any_of(importance.begin(), importance.end(), [](float x) { return x > 0; });
    for (size_t i = 0; i < input.linears.size(); ++i) {
      Calibrated& found = result[input.names[i] + std::string(kWeight)];
      found.add_inputs(inputs);
      const Tensor weight = matrix_of(*input.linears[i]);
      for (const RoundedForm& form : options.forms) {
        if (!form.refusal(weight.cols()).empty()) {
          found.errors.emplace_back();
          continue;
        }
        const Tensor rounded = form.round(weight, weighted ? importance.data() : nullptr);
        found.errors.push_back(rounding_error(weight, rounded, seen ? &inputs : nullptr));
      }
    }
  };
  while (!walk.is_done()) {
    walk.step([&](std::vector<SharedInput>& inputs) { std::for_each(inputs.begin(), inputs.end(), look); });
    if (options.calibrated) options.calibrated(walk.layer(), static_cast<size_t>(model.info().layers));
  }
  return result;
}

// Slab by slab. The matrix is (rows, columns) with its leading dimensions flattened.
RoundingError error_of(const Tensor& matrix, const RoundedForm& form) {
  const int64_t rows = matrix.rows(), columns = matrix.cols();
  const Tensor flat = matrix.view({rows, columns});
  const int64_t unit = 64 / std::gcd(int64_t{64}, columns);
  const int64_t step = std::max<int64_t>(1, kSlab / columns / unit) * unit;
  RoundingError error;
  for (int64_t first = 0; first < rows; first += step) {
    stop_if_interrupted();
    const int64_t count = std::min(step, rows - first);
    const Tensor slab = flat.row_view(first, first + count).to(DType::f32);
    error.add(rounding_error(slab, form.round(slab, nullptr), nullptr));
  }
  return error;
}

// Whether rounding it means anything: a matrix with rows of some length.
bool is_matrix(const TensorEntry& entry, const std::vector<ParameterMap::Part>* parts) {
  if (entry.shape.rank() < 2 || entry.shape.rows() < 2 ||
      !(is_floating(entry.type) || block_type(entry.type)))
    return false;
  const auto is_one = [](const ParameterMap::Part& part) {
    const Shape& shape = part.mapping->shape;
    const std::string& gguf = part.mapping->gguf.name;
    return shape.rank() >= 2 && shape.cols() >= kShortestRow && (gguf.empty() || is_quantizable(gguf, shape));
  };
  if (parts != nullptr) return std::all_of(parts->begin(), parts->end(), is_one);
  return entry.shape.cols() >= kShortestRow;
}

// The matrices of a tensor with their inputs along the columns, as quantizing sees them.
std::vector<Tensor> matrices_of(const Tensor& tensor, const std::vector<ParameterMap::Part>* parts) {
  const bool turned = parts != nullptr && std::any_of(parts->begin(), parts->end(), [](const auto& part) {
                        return part.place->at.transposed;
                      });
  if (!turned) return {tensor};
  std::vector<Tensor> matrices;
  for (const auto& part : *parts)
    matrices.push_back(take_parameter(tensor, *part.place, part.mapping->shape));
  return matrices;
}

std::vector<FormError> form_errors(const Tensor& tensor, const TensorStatistics& statistics,
                                   const std::vector<ParameterMap::Part>* parts,
                                   const std::vector<RoundedForm>& forms) {
  const std::vector<Tensor> matrices = matrices_of(tensor, parts);
  const bool is_fit = statistics.nans + statistics.infinities == 0 &&
                      std::max(-statistics.minimum, statistics.maximum) <= kMostQuantizable;
  std::vector<FormError> errors;
  for (const RoundedForm& form : forms) {
    FormError& error = errors.emplace_back();
    error.bits_per_weight = form.bits_per_weight(matrices[0].cols());
    error.note = is_fit ? form.refusal(matrices[0].cols())
                        : fmt::format("has values that are NaN, infinite or beyond {}", kMostQuantizable);
    if (!error.note.empty()) continue;
    for (const Tensor& matrix : matrices) error.error.add(error_of(matrix, form));
  }
  return errors;
}

// What calibration measured for the tensor's parameters, if it did for all of them.
bool take_calibrated(const std::vector<ParameterMap::Part>& parts, const CalibratedByParameter& calibrated,
                     const std::vector<RoundedForm>& forms, TensorAnalysis& tensor) {
  Calibrated all;
  tensor.errors.clear();
  for (const RoundedForm& form : forms) {
    const int64_t columns = parts[0].mapping->shape.cols();
    tensor.errors.push_back({form.bits_per_weight(columns), {}, form.refusal(columns)});
  }
  for (const auto& part : parts) {
    const auto found = calibrated.find(part.mapping->parameter);
    if (found == calibrated.end()) return false;
    const Calibrated& one = found->second;
    if (!all.squares.empty() && all.squares.size() != one.squares.size()) return false;
    all.squares.resize(one.squares.size());
    all.largest.resize(one.squares.size());
    for (size_t i = 0; i < one.squares.size(); ++i) {
      all.squares[i] += one.squares[i];
      all.largest[i] = std::max(all.largest[i], one.largest[i]);
    }
    all.rows += one.rows;
    for (size_t i = 0; i < forms.size(); ++i) tensor.errors[i].error.add(one.errors[i]);
  }
  if (all.rows == 0) return true;
  InputAnalysis& inputs = tensor.inputs.emplace();
  inputs.tokens = all.rows / static_cast<int64_t>(parts.size());
  for (double& square : all.squares) square = std::sqrt(square / static_cast<double>(all.rows));
  inputs.channels = channel_outliers(all.squares);
  inputs.largest = *std::max_element(all.largest.begin(), all.largest.end());
  constexpr float kLarge = 6;
  inputs.beyond_six =
      std::count_if(all.largest.begin(), all.largest.end(), [](float x) { return x >= kLarge; });
  return true;
}

bool is_number(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return '0' <= c && c <= '9'; });
}

}  // namespace

TensorRole role_of_tensor(std::string_view name) {
  TensorRole result;
  if (name.size() > kWeight.size() && name.ends_with(kWeight)) name.remove_suffix(kWeight.size());
  while (!name.empty()) {
    const size_t dot = std::min(name.find('.'), name.size());
    const std::string_view part = name.substr(0, dot);
    name.remove_prefix(std::min(dot + 1, name.size()));
    if (is_number(part) && !result.layer && part.size() < 10) {
      result.layer = std::stoll(std::string(part));
      result.role.clear();
      continue;
    }
    if (!result.role.empty()) result.role += '.';
    result.role += is_number(part) ? "*" : part;
  }
  if (result.role.empty()) result.role = "tensor";
  return result;
}

ValueHistogram value_histogram(const Tensor& tensor, const TensorStatistics& statistics) {
  ValueHistogram result;
  constexpr double kWidth = 4;  // standard deviations
  result.from = std::max(statistics.minimum, statistics.mean - kWidth * statistics.deviation);
  result.to = std::min(statistics.maximum, statistics.mean + kWidth * statistics.deviation);
  if (result.to < result.from) result.to = result.from;  // by rounding, where all values are equal
  result.counts = tensor_histogram(tensor, result.from, result.to, kAnalysisBins);
  const int64_t finite = statistics.elements - statistics.nans - statistics.infinities;
  result.outside = finite - std::accumulate(result.counts.begin(), result.counts.end(), int64_t{0});
  return result;
}

CheckpointAnalysis analyze_checkpoint(const Checkpoint& checkpoint, const AnalysisOptions& options) {
  CheckpointAnalysis result;
  for (const RoundedForm& form : options.forms) result.forms.push_back(form.name());
  CalibratedByParameter calibrated;
  if (!options.text.empty()) calibrated = calibrate(checkpoint, options);
  result.calibrated = !options.text.empty();
  const ParameterMap parameters(checkpoint);
  uint64_t done = 0;
  for (const TensorEntry& entry : checkpoint.entries()) {
    stop_if_interrupted();
    TensorAnalysis tensor;
    tensor.entry = entry;
    tensor.place = role_of_tensor(entry.name);
    const Tensor values = checkpoint.read(entry.name);
    tensor.statistics = tensor_statistics(values);
    tensor.histogram = value_histogram(values, tensor.statistics);
    const ChannelSizes sizes = channel_sizes(values);
    tensor.rows = channel_outliers(sizes.rows);
    tensor.columns = channel_outliers(sizes.columns);
    const auto* parts = parameters.find(entry.name);
    const bool is_calibrated =
        parts != nullptr && !calibrated.empty() && take_calibrated(*parts, calibrated, options.forms, tensor);
    if (!is_calibrated) {
      tensor.errors.clear();
      if (is_matrix(entry, parts))
        tensor.errors = form_errors(values, tensor.statistics, parts, options.forms);
    }
    checkpoint.release(entry.name);
    result.tensors.push_back(std::move(tensor));
    if (options.read) options.read(done += entry.bytes);
  }
  return result;
}

}  // namespace qkv
