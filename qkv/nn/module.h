// A part of a model that owns parameters. visit() is the one way to reach them: loading, saving, optimizers and counts all
// walk it. What puts another weight into a layer (adapters, calibration, quantization) walks visit_linears().
#pragma once

#include <functional>
#include <string>

#include "qkv/tensor/tensor.h"

namespace qkv {

// `name` is dotted, for example "blocks.3.attn.q.weight". The visitor may replace or modify the tensor.
using ParameterVisitor = std::function<void(const std::string& name, Tensor& parameter)>;

class Linear;
// `name` is that of the layer's parameters without ".weight": "blocks.3.attn.q".
using LinearVisitor = std::function<void(const std::string& name, Linear& linear)>;

class Module {
 public:
  virtual ~Module() = default;
  // Calls `visitor` for every parameter, always in the same order. `prefix` is "" or ends with a dot.
  virtual void visit(const std::string& prefix, const ParameterVisitor& visitor) = 0;
  // Calls `visitor` for every linear layer inside, in the order of their parameters.
  virtual void visit_linears(const std::string& prefix, const LinearVisitor& visitor) {}
};

}  // namespace qkv
