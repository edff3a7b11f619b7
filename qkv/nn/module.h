// A part of a model that owns parameters. visit() is the one way to reach them: loading, saving, optimizers, adapters and
// counts all walk it.
#pragma once

#include <functional>
#include <string>

#include "qkv/tensor/tensor.h"

namespace qkv {

// `name` is dotted, for example "blocks.3.attn.q.weight". The visitor may replace or modify the tensor.
using ParameterVisitor = std::function<void(const std::string& name, Tensor& parameter)>;

class Module {
 public:
  virtual ~Module() = default;
  // Calls `visitor` for every parameter, always in the same order. `prefix` is "" or ends with a dot.
  virtual void visit(const std::string& prefix, const ParameterVisitor& visitor) = 0;
};

}  // namespace qkv
