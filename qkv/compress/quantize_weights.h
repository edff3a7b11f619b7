// qkv quantize --method: a model's linear layers in the form of GPTQ, AWQ, bitsandbytes or
// compressed-tensors, as a Hugging Face directory or a .qkv file, or with GPTQ's rounding in a .gguf file of
// an ordinary type (gguf_rounding.h). Embeddings, heads, norms and routers stay as they are (in .gguf they
// get what the file type gives them). Layer by layer: beside the model as its file has it and the calibration
// tokens' residual stream, what is in memory is the layer being worked on and what is not yet written.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "qkv/compress/layer_walk.h"
#include "qkv/compress/matrix_format.h"
#include "qkv/compress/quantize.h"

namespace qkv {

struct WeightQuantizeOptions {
  RoundingOptions rounding;
  QuantizeOptions blocks;  // of a .gguf file: which types
  std::string text;        // for methods that calibrate
  CalibrationOptions calibration;
  std::function<void(size_t layer, size_t layers)> progress = {};
};

struct RoundedLayer {
  std::string name;           // of the parameter, "blocks.0.attn.q"
  double relative_error = 0;  // squared output error over the calibration text; of the values, without one
};

struct WeightQuantizeReport {
  uint64_t bytes_before = 0, bytes = 0;  // of all tensors
  int64_t quantized = 0, kept = 0;       // stored matrices of linear layers
  std::vector<RoundedLayer> layers;
  std::vector<std::string> notes;
};

// Error for a model that is no decoder of this program, options that do not fit, a text that is shorter than
// a sequence, weights that are not finite, and as convert_checkpoint(). `output` appears whole or not at all.
WeightQuantizeReport quantize_weights(const std::string& input, const std::string& output,
                                      const WeightQuantizeOptions& options);

}  // namespace qkv
