// The kinds of quantized files, named and numbered as in llama.cpp: a type for most matrices, and rules that
// give some of them more bits (a "mix").
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "qkv/core/metadata.h"
#include "qkv/formats/checkpoint.h"
#include "qkv/tensor/dtype.h"

namespace qkv {

enum class FileType : uint8_t {
  f32,
  f16,
  bf16,
  q4_0,
  q4_1,
  q5_0,
  q5_1,
  q8_0,
  q2_k,
  q2_k_s,
  q3_k_s,
  q3_k_m,
  q3_k_l,
  q4_k_s,
  q4_k_m,
  q5_k_s,
  q5_k_m,
  q6_k,
  iq1_s,
  iq1_m,
  iq2_xxs,
  iq2_xs,
  iq2_s,
  iq2_m,
  iq3_xxs,
  iq3_xs,
  iq3_s,
  iq3_m,
  iq4_nl,
  iq4_xs,
  tq1_0,
  tq2_0,
  mxfp4_moe,
};

struct FileTypeTraits {
  FileType type;
  std::string_view name;  // "Q4_K_M"
  uint32_t number;        // general.file_type
  DType base;             // of most matrices
  std::string_view about;
};
const std::vector<FileTypeTraits>& file_types();
const FileTypeTraits& traits(FileType type);
// By name, upper or lower case. Error naming the nearest if there is none.
const FileTypeTraits& file_type_from_name(std::string_view name);

// What the rules look at, beside a tensor's name and shape. The keys are GGUF's.
struct ModelShape {
  std::string architecture;
  int64_t layers = 0, heads_per_kv_head = 1, experts = 0;
  bool tied = true;  // the embedding is the head as well
  bool has_importance = false;

  static ModelShape of(const Metadata& metadata, const std::vector<TensorEntry>& tensors);
};

// Whether a tensor is a matrix to quantize: no vector, norm, router, convolution or table of positions.
bool is_quantizable(const std::string& name, const Shape& shape);

// The tensor types of a file type's mix. `tensors` have GGUF's names; the result is in their order, nothing
// for tensors that stay as they are. Shapes are not looked at.
std::vector<std::optional<DType>> mixed_types(FileType type, const ModelShape& model,
                                              const std::vector<TensorEntry>& tensors);

// The type itself, or the nearest (as llama.cpp has it) whose blocks fit into rows of `cols` values; f16
// where none does.
DType fitting_type(DType type, int64_t cols);

}  // namespace qkv
