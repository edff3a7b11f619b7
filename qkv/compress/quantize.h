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
  bool weighted = false;   // with importances
  bool is_matrix = false;  // one that the file type gives a type; others stay as they are
  bool is_fixed = false;   // its type is not to be chosen: a user named it, or its values fit no block
  std::string note = {};   // why it is not what was asked for
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

// Gives the plan's tensors these types, in its order, and what follows from them; the file is then called by
// the type that most of its weights have.
void set_types(QuantizePlan& plan, const std::vector<DType>& types, const QuantizeOptions& options);
// Bytes of a tensor in the plan's GGUF file, with its padding.
uint64_t padded_bytes(const QuantizePlan& plan, DType type, const Shape& shape);
// Bytes of the plan as a GGUF file, headers and padding included.
uint64_t gguf_bytes(const QuantizePlan& plan);

// Tensor `index` of the plan as the file has it. Error naming it and the index of a value that is NaN or
// infinite.
Tensor quantized_tensor(const Checkpoint& source, const QuantizePlan& plan, size_t index,
                        const QuantizeOptions& options);

// Writes the plan to x.gguf or x.qkv, whole or not at all. Errors as quantized_tensor(). `progress` is called
// with the source's bytes done. `ready`: the plan's tensors, where they were made before; each is dropped
// when it is written.
void write_quantized(const Checkpoint& source, const QuantizePlan& plan, const QuantizeOptions& options,
                     const std::string& output, const std::function<void(uint64_t bytes)>& progress = {},
                     std::vector<Tensor> ready = {});

// One tensor (..., rows, columns) in a block type; `importance` has (columns) values, or (experts, columns)
// for stacked matrices, or is null. In parallel over rows. Error naming `where` for a value that is not
// finite.
Tensor quantize_tensor(const Tensor& values, DType type, const std::vector<float>* importance,
                       const std::string& where);

}  // namespace qkv
