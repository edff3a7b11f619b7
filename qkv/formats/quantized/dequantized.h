// Checkpoints of quantized models (config.json has a `quantization_config`) read as if they were not: for
// each weight that the file holds as codes, scales and zero points, one plain f32 tensor.
#pragma once

#include <memory>

#include "qkv/formats/checkpoint.h"

namespace qkv {

// A checkpoint that presents the plain tensors and whatever was not quantized. A weight is dequantized each
// time it is read: never more than one is in memory. config() lacks the quantization, so that what is written
// from the view is consistent; stored() is the checkpoint as it is. Gives `stored` itself back if its
// configuration names no quantization, or none of its tensors is quantized.
//
// Throws Error `[<method>] <path>: ...` for a method or a variant of one that is not known, naming those that
// are, and for parts that are missing or do not fit together.
std::unique_ptr<Checkpoint> dequantized_view(std::unique_ptr<Checkpoint> stored);

}  // namespace qkv
