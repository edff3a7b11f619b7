// What a quantization method is for the reader of a checkpoint: which stored tensors together are which plain
// one, and how its values come out of them. One file per method; dequantized.cpp lists them.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "qkv/core/json.h"
#include "qkv/formats/checkpoint.h"

namespace qkv {

struct DequantizedTensor {
  std::string name;  // "model.layers.0.mlp.up_proj.weight"
  Shape shape;       // (outputs, inputs)
  // The stored tensors it is made of, the one with the codes first.
  std::vector<std::string> parts;
  // Fills shape.elements() values, row-major.
  std::function<void(float* out)> dequantize;
};

struct DequantizationPlan {
  std::vector<DequantizedTensor> tensors;
  // Stored tensors that are left out because they only concern the activations.
  std::vector<std::string> dropped;
};

// `config` is the quantization_config; `stored` outlives the plan.
using DequantizationPlanner = DequantizationPlan (*)(const Checkpoint& stored, const JsonView& config);

DequantizationPlan plan_gptq(const Checkpoint& stored, const JsonView& config);
DequantizationPlan plan_awq(const Checkpoint& stored, const JsonView& config);
DequantizationPlan plan_bitsandbytes(const Checkpoint& stored, const JsonView& config);
DequantizationPlan plan_fp8(const Checkpoint& stored, const JsonView& config);
DequantizationPlan plan_compressed_tensors(const Checkpoint& stored, const JsonView& config);

// The stored tensors of one module, "model.layers.0.mlp.up_proj", and their errors.
class QuantizedModule {
 public:
  QuantizedModule(const Checkpoint& stored, std::string_view method, std::string prefix)
      : stored_(stored), method_(method), prefix_(std::move(prefix)) {}

  std::string name(std::string_view part) const { return prefix_ + "." + std::string(part); }
  // Null if there is none.
  const TensorEntry* find(std::string_view part) const { return stored_.find(name(part)); }
  // Throws Error if there is none.
  const TensorEntry& part(std::string_view part) const;
  // And if its shape is another, or its type none of those.
  const TensorEntry& part(std::string_view part, const Shape& shape) const;
  // And if it is no matrix of at least one and at most 2^31 rows and columns.
  const TensorEntry& matrix(std::string_view part) const;
  void require_type(const TensorEntry& entry, std::initializer_list<DType> types) const;
  void require_floating(const TensorEntry& entry) const;
  void require_shape(const TensorEntry& entry, const Shape& shape) const;
  // The data; as f32; as 64-bit integers.
  Tensor read(std::string_view part) const { return stored_.read(name(part)); }
  Tensor floats(std::string_view part) const;
  std::vector<int64_t> integers(std::string_view part) const;
  // Throws Error `[<method>] <path>: module '<prefix>': <sentence>`.
  [[noreturn]] void refuse(std::string_view sentence) const;

 private:
  const Checkpoint& stored_;
  std::string_view method_;  // a literal
  std::string prefix_;
};

// The prefixes of all stored tensors that are called <prefix>.<part>.
std::vector<std::string> modules_with(const Checkpoint& stored, std::string_view part);

// True if the name ends in ".<part>" for one of the parts.
bool is_part(std::string_view name, std::initializer_list<std::string_view> parts);

// Codes of 1 to 8 bits, one after the other from the low bits of 32-bit words up; a code may lie in two
// words. `stride` is the distance between words that follow each other.
inline uint32_t packed_code(const int32_t* words, int64_t stride, int64_t index, int bits) {
  const int64_t position = index * bits;
  const int64_t word = position / 32;
  const int shift = static_cast<int>(position % 32);
  uint64_t value = static_cast<uint32_t>(words[word * stride]) >> shift;
  if (shift + bits > 32) value |= uint64_t{static_cast<uint32_t>(words[(word + 1) * stride])} << (32 - shift);
  return static_cast<uint32_t>(value & ((1u << bits) - 1));
}
// The words that so many codes take.
inline int64_t packed_words(int64_t count, int bits) {
  return (count * bits + 31) / 32;
}

// Scales of a matrix: one for all of it, one per row, one per row and group of columns, or one per block.
// Element (r, c) has scale number (r / row_block) * columns + c / column_block.
struct ScaleGrid {
  int64_t columns = 1;
  int64_t row_block = 1;
  int64_t column_block = 1;
  int64_t at(int64_t row, int64_t column) const { return row / row_block * columns + column / column_block; }
};
// What the shape of the scales says; `block` is the size of blocks where the configuration names one. Throws
// Error if they do not fit.
ScaleGrid scale_grid(const QuantizedModule& module, const TensorEntry& scales, const Shape& weight,
                     std::optional<std::pair<int64_t, int64_t>> block);

// A weight that is stored element by element (f8 or 8-bit integers) with scales and, for integers, zero
// points.
DequantizedTensor scaled_weight(QuantizedModule module, std::string_view scale_part,
                                std::optional<std::string> zero_part,
                                std::optional<std::pair<int64_t, int64_t>> block);

}  // namespace qkv
