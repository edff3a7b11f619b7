// What a checkpoint's tensors are like, for whoever compresses them: how their values are distributed, what
// their codes could be stored in without loss, which channels stand out, what rounding to other types costs,
// and, over a calibration text, what their inputs are like and what that rounding does to the layers'
// outputs.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "qkv/compress/layer_walk.h"
#include "qkv/compress/rounded_form.h"
#include "qkv/formats/checkpoint.h"
#include "qkv/models/tensor_statistics.h"

namespace qkv {

// Where a tensor stands in its model, by its name alone: "blk.3.attn_q.weight" is attn_q of layer 3, and the
// experts of one matrix are one role.
struct TensorRole {
  std::optional<int64_t> layer;
  std::string role;
};
TensorRole role_of_tensor(std::string_view name);

// Counts of values in equal bins from `from` to `to`: four standard deviations around the mean, or all values
// where those reach less far. `outside` are the finite values beyond.
struct ValueHistogram {
  double from = 0, to = 0;
  std::vector<int64_t> counts;
  int64_t outside = 0;
};
constexpr int kAnalysisBins = 33;
ValueHistogram value_histogram(const Tensor& tensor, const TensorStatistics& statistics);

// What a linear layer's matrix multiplied over the calibration text.
struct InputAnalysis {
  int64_t tokens = 0;
  double largest = 0;        // magnitude
  int64_t beyond_six = 0;    // channels with a magnitude of 6 and more: what LLM.int8() keeps in 16 bits
  ChannelOutliers channels;  // by their root mean square
};

struct FormError {
  double bits_per_weight = 0;
  RoundingError error;
  std::string note;  // why there is no error
};

struct TensorAnalysis {
  TensorEntry entry;
  TensorRole place;
  TensorStatistics statistics;
  ValueHistogram histogram;
  ChannelOutliers rows, columns;  // of no channels for vectors
  std::vector<FormError> errors;  // one for each form; empty for what is no matrix to quantize
  std::optional<InputAnalysis> inputs;
};

struct AnalysisOptions {
  std::vector<RoundedForm> forms;
  std::string text;  // to calibrate with; empty: none
  CalibrationOptions calibration;
  // Bytes of tensors looked at, and layers calibrated, so far.
  std::function<void(uint64_t bytes)> read;
  std::function<void(size_t layer, size_t layers)> calibrated;
};

struct CheckpointAnalysis {
  std::vector<TensorAnalysis> tensors;  // in the order of the file
  std::vector<std::string> forms;
  bool calibrated = false;
};

// Tensors of quantized types by their dequantized values. One tensor is in memory at a time, and of a matrix
// that is rounded a slab; with a text also the model as its file has it and one layer's second moments.
// Rounding of block types is then weighted by the inputs, as quantizing with importances is. Errors as
// calibration_sequences() and LayerWalk; interrupted as stop_if_interrupted() says.
CheckpointAnalysis analyze_checkpoint(const Checkpoint& checkpoint, const AnalysisOptions& options);

}  // namespace qkv
