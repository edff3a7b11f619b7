// What a model's tensors can be stored as, and what that costs: bytes, errors of the values, and
// (sensitivity.h) how far the model's predictions move.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "qkv/compress/quantize.h"

namespace qkv {

struct TypeCost {
  DType type = DType::f32;
  uint64_t bytes = 0;  // in a GGUF file, padding included
  double error = 0;    // squared error of the values relative to their squares, weighted by importances
  double cost = 0;     // nats of KL divergence a token; `error` where nothing was measured
};

struct TensorCosts {
  size_t tensor = 0;            // in the plan
  std::vector<TypeCost> types;  // ascending in bytes
  bool measured = false;        // the costs are of the model's predictions
  double probed = -1;           // the measured divergence of types[probed_type]; -1: none
  size_t probed_type = 0;
  double predicted = 0;  // what had been predicted for it
};

// The plan's matrices, each with the types that its rows are whole blocks of: those of `types`, or, where
// there are none given, the usual ones of 2 to 16 bits and the source's own. Types that need importances only
// where there are some, the one type of a tensor whose type is fixed. Bytes are there, costs not yet. Error
// if none of `types` fits a tensor.
std::vector<TensorCosts> possible_types(const QuantizePlan& plan, const QuantizeOptions& quantize,
                                        const std::vector<DType>& types = {});

// A tensor as the file will have it, before quantizing.
struct TensorValues {
  Tensor stored;                  // in the source's type
  Tensor before;                  // the same as f32
  std::vector<float> importance;  // (cols), (experts, cols) or none
  std::string where;

  // The values that come back from a type, as f32.
  Tensor after(DType type) const;
  // Weighted squared differences over weighted squares.
  double relative_error(const Tensor& after) const;
};
TensorValues values_of(const Checkpoint& source, const QuantizePlan& plan, const QuantizeOptions& quantize,
                       size_t tensor);

using CostProgress = std::function<void(size_t done, size_t tensors)>;

// Errors of the values, which are also the costs: comparable between the types of one tensor, and between
// tensors only by assumption.
void measure_errors(const Checkpoint& source, const QuantizePlan& plan, const QuantizeOptions& quantize,
                    std::vector<TensorCosts>& costs, const CostProgress& progress = {});

}  // namespace qkv
