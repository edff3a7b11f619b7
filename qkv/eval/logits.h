// A model's raw outputs for given token ids, and how far they are from expected ones: parity checks against
// another implementation.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "qkv/models/model.h"

namespace qkv {

// Rows of token ids: a JSON list of lists of integers, {"input_ids": such a list}, or a safetensors file's
// `input_ids` (B, T). Error naming the row.
std::vector<std::vector<int32_t>> read_id_rows(const std::string& path);
// Rows of 0 and 1 as long as `rows`, padding (0) at the end; from a JSON file like the above
// ("attention_mask") or a safetensors file's `attention_mask`.
std::vector<std::vector<int32_t>> read_mask_rows(const std::string& path,
                                                 const std::vector<std::vector<int32_t>>& rows);

using NamedTensors = std::vector<std::pair<std::string, Tensor>>;

// For a model with a vocabulary head: `logits` (B, T, V), f32, or `logits.<i>` (T_i, V) where rows differ in
// length. For an encoder without one: `last_hidden_state` likewise and `mean_pooled` (B, C), the mean over
// unmasked tokens. Masked tokens are not run; their rows are zero. Error for an id outside the vocabulary and
// a row longer than the model's positions. `ggml_gelu`, `activations`: as in Pass.
NamedTensors compute_outputs(const Model& model, const std::vector<std::vector<int32_t>>& rows,
                             const std::vector<std::vector<int32_t>>& mask = {},
                             DType compute_type = DType::f32, bool ggml_gelu = false,
                             Activations activations = Activations::exact);

struct OutputComparison {
  std::string name;
  double max_difference = 0, mean_difference = 0;  // absolute
  double max_magnitude = 0;                        // of the expected values
  double mean_kl = 0;   // of the softmax of the last dimension, expected against found; logits only
  double same_top = 0;  // share of rows whose largest value is at the same place; logits only
  int64_t rows = 0;     // compared; rows that are masked in both are left out
};
// One entry for each of `found` that `expected_path` has. Error if it has none of them, or in another shape.
std::vector<OutputComparison> compare_outputs(const NamedTensors& found, const std::string& expected_path,
                                              const std::vector<std::vector<int32_t>>& mask = {});

}  // namespace qkv
