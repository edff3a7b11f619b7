// How quantized matrices lie in Hugging Face checkpoints, for the programs that read them: AutoGPTQ, AutoAWQ,
// compressed-tensors (vLLM) and bitsandbytes. The layouts are described where they are read,
// qkv/formats/quantized. A matrix is (O outputs, I inputs) with G groups of inputs.
#pragma once

#include <string>
#include <vector>

#include "qkv/quant/scaled_fp8.h"
#include "qkv/quant/uniform.h"

namespace qkv {

struct PackedPart {
  std::string name;  // "qweight": joined to the module's name with a dot
  DType type;
  Shape shape;
};
using PackedLayout = std::vector<PackedPart>;

// Layouts and, in their order, their tensors. Scales are f16.

// qweight, qzeros, scales, g_idx. `zero_offset` 1: zero points are stored minus one, as checkpoint_format
// "gptq" has it.
PackedLayout gptq_layout(int64_t outputs, int64_t inputs, const UniformScheme& scheme);
std::vector<Tensor> pack_gptq(const CodedMatrix& matrix, int zero_offset);

// qweight, qzeros, scales, of 4 bits ("gemm"). O is a multiple of 8.
PackedLayout awq_layout(int64_t outputs, int64_t inputs, const UniformScheme& scheme);
std::vector<Tensor> pack_awq(const CodedMatrix& matrix);

// compressed-tensors' pack-quantized: weight_packed, weight_shape, weight_scale and, unless the scheme is
// symmetric, weight_zero_point. I is a multiple of the group.
PackedLayout packed_integer_layout(int64_t outputs, int64_t inputs, const UniformScheme& scheme);
std::vector<Tensor> pack_integers(const CodedMatrix& matrix, const UniformScheme& scheme);

// compressed-tensors' int-quantized, 8 symmetric bits with a scale per row: weight, weight_scale.
PackedLayout int8_layout(int64_t outputs, int64_t inputs);
std::vector<Tensor> pack_int8(const CodedMatrix& matrix);

// compressed-tensors' float-quantized with a scale per row: weight, weight_scale.
PackedLayout fp8_layout(int64_t outputs, int64_t inputs, DType type);

// bitsandbytes' 4 bits: weight, weight.absmax, weight.quant_map, the nested scales' two parts if there are
// some, and weight.quant_state.bitsandbytes__<nf4|fp4>, padded with spaces to a size that does not depend on
// the values.
struct FourBitFormat {
  bool is_nf4 = true;
  bool is_nested = true;
};
PackedLayout four_bit_layout(int64_t outputs, int64_t inputs, const FourBitFormat& format);
std::vector<Tensor> pack_four_bit(const Tensor& weight, const FourBitFormat& format);

// bitsandbytes' LLM.int8(): weight, SCB, weight_format.
PackedLayout llm_int8_layout(int64_t outputs, int64_t inputs);
std::vector<Tensor> pack_llm_int8(const Tensor& weight);

}  // namespace qkv
