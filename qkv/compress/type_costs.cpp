#include "qkv/compress/type_costs.h"

#include <algorithm>
#include <numeric>

#include "qkv/core/error.h"
#include "qkv/core/interrupt.h"
#include "qkv/core/parallel.h"
#include "qkv/quant/quantize.h"

namespace qkv {
namespace {

// Types that a file of ordinary weights is well served by, smallest first. Ternary types are for models
// trained to be ternary; one bit leaves nothing of a model that was not.
const std::vector<DType>& ordinary_types() {
  static const std::vector<DType> types = {
      DType::iq2_xxs, DType::iq2_xs, DType::iq2_s, DType::q2_k, DType::iq3_xxs, DType::iq3_s,
      DType::q3_k,    DType::iq4_xs, DType::q4_k,  DType::q5_k, DType::q6_k,    DType::q8_0,
      DType::iq4_nl,  DType::q4_0,   DType::q4_1,  DType::q5_0, DType::q5_1,    DType::f16};
  return types;
}

// Blocks of 32 have better ones of 256 beside them, of about the same size.
bool is_for_short_rows(DType type) {
  return type == DType::q4_0 || type == DType::q4_1 || type == DType::q5_0 || type == DType::q5_1;
}

}  // namespace

std::vector<TensorCosts> possible_types(const QuantizePlan& plan, const QuantizeOptions& quantize,
                                        const std::vector<DType>& types) {
  std::vector<TensorCosts> all;
  for (size_t i = 0; i < plan.tensors.size(); ++i) {
    const QuantizedTensor& tensor = plan.tensors[i];
    if (!tensor.is_matrix || tensor.shape.elements() == 0) continue;
    TensorCosts costs;
    costs.tensor = i;
    const bool weighted =
        quantize.importance != nullptr && quantize.importance->matrices.count(tensor.name) > 0;
    const auto add = [&](DType type) {
      const bool there = std::any_of(costs.types.begin(), costs.types.end(),
                                     [&](const TypeCost& known) { return known.type == type; });
      if (!there) costs.types.push_back({type, padded_bytes(plan, type, tensor.shape), 0, 0});
    };
    const auto fits = [&](DType type) {
      if (tensor.shape.cols() % traits(type).block_length != 0) return false;
      const auto block = block_type(type);
      return !block || !needs_importance(*block) || weighted;
    };
    if (tensor.is_fixed) {
      add(tensor.to);
    } else if (!types.empty()) {
      std::for_each(types.begin(), types.end(), [&](DType type) {
        if (fits(type)) add(type);
      });
      require(!costs.types.empty(),
              "--candidate-types: none of them fits tensor '{}' {}: add one of shorter blocks (q8_0, q4_0) "
              "or f16",
              tensor.name, tensor.shape.str());
    } else {
      const bool long_rows = tensor.shape.cols() % kSuperBlock == 0;
      for (const DType type : ordinary_types()) {
        if (fits(type) && !(long_rows && is_for_short_rows(type))) add(type);
      }
      add(tensor.from);
    }
    std::stable_sort(costs.types.begin(), costs.types.end(),
                     [](const TypeCost& a, const TypeCost& b) { return a.bytes < b.bytes; });
    all.push_back(std::move(costs));
  }
  return all;
}

Tensor TensorValues::after(DType type) const {
  if (type == stored.dtype()) return before;
  if (!is_block(type)) return stored.to(type).to(DType::f32);
  return quantize_tensor(stored, type, importance.empty() ? nullptr : &importance, where).to(DType::f32);
}

double TensorValues::relative_error(const Tensor& after) const {
  const int64_t rows = before.rows(), cols = before.cols();
  const int64_t sets = std::max<int64_t>(1, static_cast<int64_t>(importance.size()) / cols);
  std::vector<double> squares(static_cast<size_t>(rows)), errors(static_cast<size_t>(rows));
  const float *x = before.data<float>(), *y = after.data<float>();
  parallel_for(rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* weights = importance.empty() ? nullptr : importance.data() + r * sets / rows * cols;
      double square = 0, error = 0;
      for (int64_t c = 0; c < cols; ++c) {
        const double value = x[r * cols + c], change = value - double{y[r * cols + c]};
        const double weight = weights != nullptr ? double{weights[c]} : 1.0;
        square += weight * value * value;
        error += weight * change * change;
      }
      squares[static_cast<size_t>(r)] = square;
      errors[static_cast<size_t>(r)] = error;
    }
  });
  const double square = std::accumulate(squares.begin(), squares.end(), 0.0);
  return square > 0 ? std::accumulate(errors.begin(), errors.end(), 0.0) / square : 0;
}

TensorValues values_of(const Checkpoint& source, const QuantizePlan& plan, const QuantizeOptions& quantize,
                       size_t tensor) {
  TensorValues values;
  const std::string& name = plan.tensors[tensor].name;
  values.stored = make_tensor(source, plan.conversion.tensors[tensor]);
  values.before = values.stored.to(DType::f32);
  if (quantize.importance != nullptr) {
    const auto found = quantize.importance->matrices.find(name);
    if (found != quantize.importance->matrices.end()) values.importance = found->second.means();
  }
  values.where = fmt::format("{}: tensor '{}'", source.path(), name);
  return values;
}

void measure_errors(const Checkpoint& source, const QuantizePlan& plan, const QuantizeOptions& quantize,
                    std::vector<TensorCosts>& costs, const CostProgress& progress) {
  for (size_t i = 0; i < costs.size(); ++i) {
    const TensorValues values = values_of(source, plan, quantize, costs[i].tensor);
    for (TypeCost& type : costs[i].types) {
      stop_if_interrupted();
      type.error = type.cost = values.relative_error(values.after(type.type));
    }
    if (progress) progress(i + 1, costs.size());
  }
}

}  // namespace qkv
