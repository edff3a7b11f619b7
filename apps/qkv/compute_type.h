// The flag --dtype of verbs that run a model: the type of its activations.
#pragma once

#include <string>

#include "qkv/core/error.h"
#include "qkv/tensor/dtype.h"

namespace qkv {

// Error that names --dtype unless it is f32 or bf16.
inline DType compute_type(const std::string& name) {
  const std::optional<DType> type = dtype_from_name(name);
  require(type == DType::f32 || type == DType::bf16, "--dtype: expected f32 or bf16, found '{}'", name);
  return *type;
}

}  // namespace qkv
