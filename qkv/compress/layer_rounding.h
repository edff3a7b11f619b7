// The calibrated methods on the inputs of one layer: GPTQ, AWQ and SmoothQuant on the linear layers that
// share an input.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "qkv/compress/matrix_format.h"
#include "qkv/compress/scale_migration.h"

namespace qkv {

struct RoundedMatrix {
  CodedMatrix codes;
  double relative_error = 0;  // squared error of the outputs, divided by their square
};

// Rounds the layers for which `wanted(name)` holds, puts the rounded matrices into the model and gives their
// codes, by the linear layers' names.
std::map<std::string, RoundedMatrix> round_layer(Decoder& model, std::vector<SharedInput>& inputs,
                                                 const RoundingOptions& options, const UniformScheme& scheme,
                                                 const std::function<bool(const std::string& name)>& wanted);

}  // namespace qkv
