#include "qkv/eval/logits.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/core/interrupt.h"
#include "qkv/core/json.h"
#include "qkv/eval/divergence.h"
#include "qkv/formats/checkpoint.h"
#include "qkv/tensor/autograd.h"

namespace qkv {
namespace {

std::vector<std::vector<int32_t>> rows_of_tensor(const Tensor& tensor, const std::string& where) {
  require(tensor.shape().rank() == 2 && tensor.dtype() == DType::i64,
          "{}: expected i64 (rows, tokens), found {}", where, describe(tensor));
  std::vector<std::vector<int32_t>> rows(static_cast<size_t>(tensor.dim(0)));
  const int64_t* data = tensor.data<int64_t>();
  for (auto& row : rows) {
    for (int64_t t = 0; t < tensor.dim(1); ++t) row.push_back(static_cast<int32_t>(*data++));
  }
  return rows;
}

std::vector<std::vector<int32_t>> read_rows(const std::string& path, const char* key) {
  if (path.ends_with(".safetensors"))
    return rows_of_tensor(open_checkpoint(path)->read(key), path + ": tensor '" + key + "'");
  const Json json = load_json(path);
  const Json& list = json.is_object() && json.contains(key) ? json[key] : json;
  require(list.is_array() && !list.empty(), "{}: expected a list of lists of integers, found {}", path,
          list.is_array() ? "an empty list" : list.type_name());
  std::vector<std::vector<int32_t>> rows;
  for (const Json& row : list) {
    const size_t number = rows.size() + 1;
    require(row.is_array() && !row.empty(), "{}: row {}: expected a list of integers, found {}", path, number,
            row.is_array() ? "an empty list" : row.type_name());
    rows.emplace_back();
    for (const Json& value : row) {
      require(value.is_number_integer() && value.get<int64_t>() >= 0 && value.get<int64_t>() < INT32_MAX,
              "{}: row {}: expected token ids, found {}", path, number, value.dump());
      rows.back().push_back(value.get<int32_t>());
    }
  }
  return rows;
}

int64_t unmasked(const std::vector<std::vector<int32_t>>& rows, const std::vector<std::vector<int32_t>>& mask,
                 size_t row) {
  if (mask.empty()) return static_cast<int64_t>(rows[row].size());
  return std::count(mask[row].begin(), mask[row].end(), 1);
}

}  // namespace

std::vector<std::vector<int32_t>> read_id_rows(const std::string& path) {
  return read_rows(path, "input_ids");
}

std::vector<std::vector<int32_t>> read_mask_rows(const std::string& path,
                                                 const std::vector<std::vector<int32_t>>& rows) {
  std::vector<std::vector<int32_t>> mask = read_rows(path, "attention_mask");
  require(mask.size() == rows.size(), "{}: expected {} rows, as many as there are of ids, found {}", path,
          rows.size(), mask.size());
  for (size_t r = 0; r < rows.size(); ++r) {
    require(mask[r].size() == rows[r].size(), "{}: row {}: expected {} values, one per token, found {}", path,
            r + 1, rows[r].size(), mask[r].size());
    require(mask[r][0] == 1 &&
                std::all_of(mask[r].begin(), mask[r].end(), [](int32_t m) { return m == 0 || m == 1; }) &&
                std::is_sorted(mask[r].begin(), mask[r].end(), std::greater<>()),
            "{}: row {}: expected ones, then zeros for the padding at the end", path, r + 1);
  }
  return mask;
}

NamedTensors compute_outputs(const Model& model, const std::vector<std::vector<int32_t>>& rows,
                             const std::vector<std::vector<int32_t>>& mask, DType compute_type, bool ggml_gelu,
                             Activations activations) {
  const NoGrad off;
  const ModelInfo& info = model.info();
  const bool has_head = model.head().defined();
  const bool equal =
      std::all_of(rows.begin(), rows.end(), [&](const auto& row) { return row.size() == rows[0].size(); });
  const int64_t width = has_head ? info.vocabulary : info.channels;
  const std::string name = has_head ? "logits" : "last_hidden_state";
  const auto count = static_cast<int64_t>(rows.size());

  NamedTensors outputs;
  Tensor all = equal ? Tensor::zeros({count, static_cast<int64_t>(rows[0].size()), width}) : Tensor();
  Tensor pooled = has_head ? Tensor() : Tensor::zeros({count, width});
  for (size_t r = 0; r < rows.size(); ++r) {
    stop_if_interrupted();
    const auto length = static_cast<int64_t>(rows[r].size()), used = unmasked(rows, mask, r);
    for (const int32_t id : rows[r])
      require(id < info.vocabulary, "row {}: expected token ids below {}, found {}", r + 1, info.vocabulary,
              id);
    Pass pass = Pass::whole({used});
    pass.compute_type = compute_type;
    pass.ggml_gelu = ggml_gelu;
    pass.activations = activations;
    const Tensor hidden = model.forward({rows[r].begin(), rows[r].begin() + used}, pass);
    const Tensor values = has_head ? model.logits(hidden, activations) : hidden.to(DType::f32);  // (used, width)
    const float* from = values.data<float>();
    Tensor own = equal ? Tensor() : Tensor::zeros({length, width});
    float* to = equal ? all.data<float>() + static_cast<int64_t>(r) * length * width : own.data<float>();
    std::memcpy(to, from, static_cast<size_t>(used * width) * sizeof(float));
    if (!has_head) {
      float* mean = pooled.data<float>() + static_cast<int64_t>(r) * width;
      for (int64_t c = 0; c < width; ++c) {
        double sum = 0;
        for (int64_t t = 0; t < used; ++t) sum += static_cast<double>(from[t * width + c]);
        mean[c] = static_cast<float>(sum / static_cast<double>(used));
      }
    }
    if (!equal) outputs.emplace_back(fmt::format("{}.{}", name, r), own);
  }
  if (equal) outputs.emplace_back(name, all);
  if (pooled.defined()) outputs.emplace_back("mean_pooled", pooled);
  return outputs;
}

std::vector<OutputComparison> compare_outputs(const NamedTensors& found, const std::string& expected_path,
                                              const std::vector<std::vector<int32_t>>& mask) {
  const auto expected = open_checkpoint(expected_path);
  std::vector<OutputComparison> comparisons;
  for (const auto& [name, tensor] : found) {
    if (expected->find(name) == nullptr) continue;
    const Tensor want = expected->read(name).to(DType::f32);
    require(want.shape() == tensor.shape(),
            "{}: tensor '{}': expected shape {}, as the outputs have, found {}", expected_path, name,
            tensor.shape().str(), want.shape().str());
    OutputComparison result;
    result.name = name;
    const bool is_logits = name.starts_with("logits"), is_pooled = name == "mean_pooled";
    const int64_t rows = tensor.rows(), cols = tensor.cols(),
                  per_sequence = tensor.shape().rank() == 3 ? tensor.dim(1) : rows;
    const size_t first =
        tensor.shape().rank() == 2 && !is_pooled ? std::stoul(name.substr(name.rfind('.') + 1)) : 0;
    double sum = 0;
    for (int64_t r = 0; r < rows; ++r) {
      if (!mask.empty() && !is_pooled &&
          mask[first + static_cast<size_t>(r / per_sequence)][static_cast<size_t>(r % per_sequence)] == 0)
        continue;
      const float *a = tensor.data<float>() + r * cols, *b = want.data<float>() + r * cols;
      for (int64_t c = 0; c < cols; ++c) {
        const double difference = std::abs(static_cast<double>(a[c]) - static_cast<double>(b[c]));
        // A NaN is the largest difference there is, not one that comparisons overlook.
        result.max_difference =
            std::isnan(difference) ? INFINITY : std::max(result.max_difference, difference);
        result.max_magnitude = std::max(result.max_magnitude, std::abs(static_cast<double>(b[c])));
        sum += difference;
      }
      if (is_logits) {
        const RowDivergence statistics = compare_rows(a, b, cols, 0);
        result.mean_kl += statistics.kl;
        result.same_top += statistics.same_top ? 1 : 0;
      }
      ++result.rows;
    }
    const auto n = static_cast<double>(std::max<int64_t>(1, result.rows));
    result.mean_difference = sum / n / static_cast<double>(cols);
    result.mean_kl /= n;
    result.same_top /= n;
    comparisons.push_back(result);
  }
  require(!comparisons.empty(), "{}: expected a tensor '{}' to compare with, found none", expected_path,
          found.empty() ? "logits" : found[0].first);
  return comparisons;
}

}  // namespace qkv
