// qkv quantize --method gptq to a .gguf file: the plan of an ordinary file type, with error-compensated
// rounding for the linear layers' matrices and the plain search for everything else.
#pragma once

#include <string>

#include "qkv/compress/quantize_weights.h"

namespace qkv {

// Error for other methods, for types whose weights cannot be rounded one by one (naming the nearest that
// can), and as quantize_weights().
WeightQuantizeReport round_to_gguf(const Checkpoint& source, const std::string& output,
                                   const WeightQuantizeOptions& options);

}  // namespace qkv
