// qkv quantize: a checkpoint's matrices in fewer bits, as a GGUF or .qkv file, tensor by tensor in bounded
// memory.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "qkv/compress/file_types.h"
#include "qkv/compress/importance.h"
#include "qkv/models/conversion_plan.h"

namespace qkv {

struct QuantizeOptions {
  FileType type = FileType::q4_k_m;
  // Regular expressions on GGUF's tensor names, found anywhere in them; the first that matches decides.
  std::vector<std::pair<std::string, DType>> tensor_types = {};
  std::optional<DType> output_type = {}, embedding_type = {};
  bool pure = false;  // every matrix gets the file type's own type
  bool keep_nonfinite =
      false;  // tensors with NaN or infinite values stay as they are; otherwise they are an Error
  const Importance* importance = nullptr;
  std::string importance_name = {};  // for errors and for the file's metadata
};

struct QuantizedTensor {
  std::string name;
  Shape shape;
  DType from = DType::f32, to = DType::f32;
  uint64_t bytes_from = 0, bytes_to = 0;
  bool weighted = false;  // with importances
  std::string note = {};  // why it is not what was asked for
};

struct QuantizePlan {
  FileType type = FileType::q4_k_m;
  ConversionPlan conversion;             // with the types that will be written
  std::vector<QuantizedTensor> tensors;  // in its order
  uint64_t bytes_from = 0, bytes_to = 0;
  int64_t elements = 0;

  double bits_per_weight() const;
};

// What would be written. Error for a source without a model that GGUF knows, for a pattern that is no regular
// expression, for importances of another model, and where a type needs importances that are not there.
QuantizePlan plan_quantization(const Checkpoint& source, const QuantizeOptions& options);

// Writes the plan to x.gguf or x.qkv, whole or not at all. Error naming the tensor and the index of a value
// that is NaN or infinite. `progress` is called with the source's bytes done.
void write_quantized(const Checkpoint& source, const QuantizePlan& plan, const QuantizeOptions& options,
                     const std::string& output, const std::function<void(uint64_t bytes)>& progress = {});

// One tensor (..., rows, columns) in a block type; `importance` has (columns) values, or (experts, columns)
// for stacked matrices, or is null. In parallel over rows. Error naming `where` for a value that is not
// finite.
Tensor quantize_tensor(const Tensor& values, DType type, const std::vector<float>* importance,
                       const std::string& where);

}  // namespace qkv
