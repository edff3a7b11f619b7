// What a conversion writes, before anything is written: every tensor with its type, the metadata, the files
// beside the weights. Where the names stay what they are (safetensors, PyTorch, .qkv among each other; GGUF
// and .qkv) tensors are copied by name and no architecture needs to be known. Between Hugging Face's names
// and GGUF's, tensors are taken apart and put together through the architecture's weight table.
//
// The way back is exact: metadata under "qkv.hf." keeps the original types where GGUF has others, and the
// bits of what it stores transformed (hf_metadata.h). They are used only where they still agree with the
// values in the file.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "qkv/formats/checkpoint.h"
#include "qkv/models/hf_metadata.h"
#include "qkv/models/weight_map.h"

namespace qkv {

// How the target names tensors and what it can hold.
enum class Container : uint8_t { huggingface, safetensors, pytorch, gguf, qkv };

struct PlannedTensor {
  struct Part {
    std::string source;     // a tensor of the source
    StoredTensor from, to;  // the parameter's places in it and in the planned tensor
    Shape parameter;
  };
  TensorEntry entry;
  std::string whole;  // not empty: the source's tensor of this name as it is, converted to the entry's type
  std::vector<Part> parts;  // otherwise: put together from these
  Tensor ready = {};        // defined: this, and nothing from the source
};

struct ConversionPlan {
  std::vector<PlannedTensor> tensors;
  Metadata metadata;
  HfFiles files;
  std::vector<std::string> notes;  // sentences for the user
};

// `type`: what all floating-point values become, quantized ones included; nothing: every tensor keeps its
// values exactly. Error for an unknown architecture where one is needed, for tensors that have no place in
// the target, and for quantized tensors that the target cannot hold without `type`.
ConversionPlan plan_conversion(const Checkpoint& source, Container target, std::optional<DType> type);

// The tensor, borrowed from the source where it is there as it is.
Tensor make_tensor(const Checkpoint& source, const PlannedTensor& planned);

}  // namespace qkv
