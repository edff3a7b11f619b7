// Where a LoRA begins, other than at nothing.
#pragma once

#include <cstdint>

#include "qkv/models/adapter.h"

namespace qkv {

// PiSSA: A and B are the leading singular vectors of each module's weight with the roots of its values, and
// so is the start that is taken off again. `adapter` was created with that start.
void start_at_singular_vectors(Adapter& adapter, uint64_t seed);

// LoftQ's last step (Li et al., arXiv 2310.08659, algorithm 1 with the base as it is quantized): A and B are
// the best of their rank for original weight - base weight. The share of the squared difference that they
// make good. Error if `original` has not the base's modules.
double start_at_quantization_error(Adapter& adapter, Model& original, uint64_t seed);

}  // namespace qkv
