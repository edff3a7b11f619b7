// Shared by the ops that carry a state along a sequence.
#pragma once

#include "qkv/tensor/ops/detail.h"

namespace qkv::ops::detail {

// Error unless the sequences cover `rows` tokens.
void require_sequences(const PackedSequences& sequences, int64_t rows, const char* op);
// Error unless `states` is empty or has one f32 tensor of `shape` per sequence, off the tape.
void require_states(const std::vector<Tensor>& states, const PackedSequences& sequences, const Shape& shape,
                    bool on_tape, const char* op);

// The transpose of an f32 matrix, off the tape.
Tensor transposed(const Tensor& matrix);

// Runs body(item, thread) for `items` items of about `work` elementary steps in all; on this thread if that
// is little.
template <typename Body>
void over_items(int64_t items, int64_t work, Body&& body) {
  constexpr int64_t worth_a_thread = 1 << 15;
  if (work < worth_a_thread) {
    for (int64_t i = 0; i < items; ++i) body(i, 0);
  } else {
    parallel_items(items, body);
  }
}

// The sum of parts[p] (all of one shape, f32) in the order of p, in `type`. Parts are consumed.
Tensor sum_of_parts(std::vector<Tensor> parts, DType type);

}  // namespace qkv::ops::detail
