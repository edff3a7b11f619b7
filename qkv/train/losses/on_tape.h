// Losses that come with their gradients, on the tape.
#pragma once

#include <cstdint>
#include <vector>

#include "qkv/tensor/tensor.h"

namespace qkv::losses {

// (S) f32: sums of values (T) over runs of rows, run s being [offsets[s], offsets[s + 1]); with `divisors`
// (S), each sum over its divisor: an answer's log-probability, or its average, of its tokens'.
Tensor segment_sums(const Tensor& values, const std::vector<int64_t>& offsets,
                    const std::vector<float>& divisors = {});

// `value` as one element whose gradient by inputs[i] is gradients[i], of that input's shape: a loss that was
// computed beside the tape together with its derivatives.
Tensor with_gradients(double value, const std::vector<Tensor>& inputs, std::vector<Tensor> gradients);

}  // namespace qkv::losses
