#include "qkv/tensor/ops/state_space.h"

namespace qkv::ops::detail {

void require_sequences(const PackedSequences& sequences, int64_t rows, const char* op) {
  const auto& offsets = sequences.offsets;
  require(!offsets.empty() && offsets.front() == 0 && offsets.back() == rows &&
              std::is_sorted(offsets.begin(), offsets.end()),
          "{}: sequence offsets do not cover the {} tokens", op, rows);
}

void require_states(const std::vector<Tensor>& states, const PackedSequences& sequences, const Shape& shape,
                    bool on_tape, const char* op) {
  if (states.empty()) return;
  require(!on_tape, "{}: a sequence that goes on from a state has no gradient", op);
  require(static_cast<int64_t>(states.size()) == sequences.count(),
          "{}: expected a state for each of {} sequences, found {}", op, sequences.count(), states.size());
  for (const Tensor& state : states) {
    require(state.defined() && state.shape() == shape && state.dtype() == DType::f32,
            "{}: expected states f32 {}, found {}", op, shape.str(),
            state.defined() ? describe(state) : "none");
  }
}

Tensor transposed(const Tensor& matrix) {
  const int64_t rows = matrix.dim(0), cols = matrix.dim(1);
  Tensor y = Tensor::empty({cols, rows});
  const float* from = matrix.data<float>();
  float* to = y.data<float>();
  constexpr int64_t tile = 16;  // both sides of a tile stay in L1
  for (int64_t r = 0; r < rows; r += tile) {
    for (int64_t c = 0; c < cols; ++c) {
      for (int64_t i = r; i < std::min(rows, r + tile); ++i) to[c * rows + i] = from[i * cols + c];
    }
  }
  return y;
}

Tensor sum_of_parts(std::vector<Tensor> parts, DType type) {
  float* sum = parts[0].data<float>();
  parallel_for(parts[0].elements(), kElementGrain, [&](int64_t begin, int64_t end) {
    for (size_t p = 1; p < parts.size(); ++p)
      kernels().axpy(1.0f, parts[p].data<float>() + begin, sum + begin, end - begin);
  });
  return parts[0].to(type);
}

}  // namespace qkv::ops::detail
