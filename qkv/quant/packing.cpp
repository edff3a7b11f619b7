#include "qkv/quant/packing.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/core/json.h"
#include "qkv/core/parallel.h"
#include "qkv/kernels/blocks.h"
#include "qkv/quant/four_bit.h"
#include "qkv/quant/llm_int8.h"

namespace qkv {
namespace {

constexpr int64_t kStateBytes = 512;  // of bitsandbytes' JSON; a shape of 2^63 columns fits

int64_t words_of(int64_t count, int bits) {
  return (count * bits + 31) / 32;
}

// Code number `index` of 1 to 8 bits, from the low bits of the words up; a code may lie in two words,
// `stride` apart.
void put_code(int32_t* words, int64_t stride, int64_t index, int bits, uint32_t code) {
  const int64_t position = index * bits;
  const int shift = static_cast<int>(position % 32);
  const auto or_into = [&](int64_t word, uint32_t value) {
    words[word * stride] = static_cast<int32_t>(static_cast<uint32_t>(words[word * stride]) | value);
  };
  or_into(position / 32, code << shift);
  if (shift + bits > 32) or_into(position / 32 + 1, code >> (32 - shift));
}

// (G, O) f16.
Tensor scales_by_group(const CodedMatrix& matrix) {
  Tensor scales = Tensor::empty({matrix.groups, matrix.rows}, DType::f16);
  for (int64_t g = 0; g < matrix.groups; ++g)
    for (int64_t o = 0; o < matrix.rows; ++o)
      scales.data<f16>()[g * matrix.rows + o] = to_f16(matrix.scale(o, g).scale);
  return scales;
}

uint32_t code_at(const CodedMatrix& matrix, int64_t row, int64_t column) {
  return matrix.codes[static_cast<size_t>(row * matrix.columns + column)];
}

Tensor bytes_tensor(const std::vector<uint8_t>& bytes, Shape shape) {
  Tensor tensor = Tensor::empty(shape, DType::u8);
  if (!bytes.empty()) std::memcpy(tensor.raw(), bytes.data(), bytes.size());
  return tensor;
}

int64_t ceiling(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

}  // namespace

PackedLayout gptq_layout(int64_t outputs, int64_t inputs, const UniformScheme& scheme) {
  const int64_t groups = scheme.groups(inputs);
  return {{"qweight", DType::i32, {words_of(inputs, scheme.bits), outputs}},
          {"qzeros", DType::i32, {groups, words_of(outputs, scheme.bits)}},
          {"scales", DType::f16, {groups, outputs}},
          {"g_idx", DType::i32, {inputs}}};
}

std::vector<Tensor> pack_gptq(const CodedMatrix& matrix, int zero_offset) {
  const int bits = matrix.bits;
  const int64_t zero_words = words_of(matrix.rows, bits);
  Tensor codes = Tensor::zeros({words_of(matrix.columns, bits), matrix.rows}, DType::i32);
  Tensor zeros = Tensor::zeros({matrix.groups, zero_words}, DType::i32);
  int32_t* words = codes.data<int32_t>();
  parallel_for(matrix.rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t o = begin; o < end; ++o)
      for (int64_t i = 0; i < matrix.columns; ++i)
        put_code(words + o, matrix.rows, i, bits, code_at(matrix, o, i));
  });
  const uint32_t mask = (1u << bits) - 1;
  for (int64_t g = 0; g < matrix.groups; ++g) {
    for (int64_t o = 0; o < matrix.rows; ++o)
      put_code(zeros.data<int32_t>() + g * zero_words, 1, o, bits,
               static_cast<uint32_t>(matrix.scale(o, g).zero - zero_offset) & mask);
  }
  return {codes, zeros, scales_by_group(matrix), Tensor::from(matrix.group_of, {matrix.columns})};
}

PackedLayout awq_layout(int64_t outputs, int64_t inputs, const UniformScheme& scheme) {
  const int64_t groups = scheme.groups(inputs);
  return {{"qweight", DType::i32, {inputs, outputs / 8}},
          {"qzeros", DType::i32, {groups, outputs / 8}},
          {"scales", DType::f16, {groups, outputs}}};
}

std::vector<Tensor> pack_awq(const CodedMatrix& matrix) {
  require(matrix.bits == 4 && matrix.rows % 8 == 0,
          "awq: expected 4 bits and a multiple of 8 outputs, found {} and {}", matrix.bits, matrix.rows);
  // Output 8 c + k lies in nibble kNibble[k] of word c.
  constexpr std::array<int64_t, 8> kNibble = {0, 4, 1, 5, 2, 6, 3, 7};
  const int64_t words = matrix.rows / 8;
  Tensor codes = Tensor::zeros({matrix.columns, words}, DType::i32),
         zeros = Tensor::zeros({matrix.groups, words}, DType::i32);
  const auto put = [&](Tensor& tensor, int64_t row, int64_t output, uint32_t code) {
    put_code(tensor.data<int32_t>() + row * words + output / 8, 1, kNibble[static_cast<size_t>(output % 8)],
             4, code);
  };
  for (int64_t i = 0; i < matrix.columns; ++i)
    for (int64_t o = 0; o < matrix.rows; ++o) put(codes, i, o, code_at(matrix, o, i));
  for (int64_t g = 0; g < matrix.groups; ++g)
    for (int64_t o = 0; o < matrix.rows; ++o)
      put(zeros, g, o, static_cast<uint32_t>(matrix.scale(o, g).zero));
  return {codes, zeros, scales_by_group(matrix)};
}

PackedLayout packed_integer_layout(int64_t outputs, int64_t inputs, const UniformScheme& scheme) {
  const int64_t groups = scheme.groups(inputs);
  PackedLayout layout = {{"weight_packed", DType::i32, {outputs, words_of(inputs, scheme.bits)}},
                         {"weight_shape", DType::i64, {2}},
                         {"weight_scale", DType::f16, {outputs, groups}}};
  if (scheme.range != CodeRange::symmetric)
    layout.push_back({"weight_zero_point", DType::i32, {words_of(outputs, scheme.bits), groups}});
  return layout;
}

std::vector<Tensor> pack_integers(const CodedMatrix& matrix, const UniformScheme& scheme) {
  const int64_t words = words_of(matrix.columns, matrix.bits);
  Tensor codes = Tensor::zeros({matrix.rows, words}, DType::i32);
  Tensor scales = Tensor::empty({matrix.rows, matrix.groups}, DType::f16);
  for (int64_t o = 0; o < matrix.rows; ++o) {
    for (int64_t i = 0; i < matrix.columns; ++i)
      put_code(codes.data<int32_t>() + o * words, 1, i, matrix.bits, code_at(matrix, o, i));
    for (int64_t g = 0; g < matrix.groups; ++g)
      scales.data<f16>()[o * matrix.groups + g] = to_f16(matrix.scale(o, g).scale);
  }
  std::vector<Tensor> parts = {codes, Tensor::from(std::vector<int64_t>{matrix.rows, matrix.columns}, {2}),
                               scales};
  if (scheme.range == CodeRange::symmetric) return parts;
  Tensor zeros = Tensor::zeros({words_of(matrix.rows, matrix.bits), matrix.groups}, DType::i32);
  for (int64_t o = 0; o < matrix.rows; ++o)
    for (int64_t g = 0; g < matrix.groups; ++g)
      put_code(zeros.data<int32_t>() + g, matrix.groups, o, matrix.bits,
               static_cast<uint32_t>(matrix.scale(o, g).zero));
  parts.push_back(zeros);
  return parts;
}

PackedLayout int8_layout(int64_t outputs, int64_t inputs) {
  return {{"weight", DType::i8, {outputs, inputs}}, {"weight_scale", DType::f16, {outputs, 1}}};
}

std::vector<Tensor> pack_int8(const CodedMatrix& matrix) {
  require(matrix.bits == 8 && matrix.groups == 1,
          "int8: expected 8 bits and a scale per row, found {} and {} groups", matrix.bits, matrix.groups);
  Tensor codes = Tensor::empty({matrix.rows, matrix.columns}, DType::i8),
         scales = Tensor::empty({matrix.rows, 1}, DType::f16);
  for (int64_t o = 0; o < matrix.rows; ++o) {
    const ScaleAndZero scale = matrix.scale(o, 0);
    scales.data<f16>()[o] = to_f16(scale.scale);
    for (int64_t i = 0; i < matrix.columns; ++i)
      codes.data<int8_t>()[o * matrix.columns + i] =
          static_cast<int8_t>(static_cast<int>(code_at(matrix, o, i)) - scale.zero);
  }
  return {codes, scales};
}

PackedLayout fp8_layout(int64_t outputs, int64_t inputs, DType type) {
  return {{"weight", type, {outputs, inputs}}, {"weight_scale", DType::f32, {outputs, 1}}};
}

PackedLayout four_bit_layout(int64_t outputs, int64_t inputs, const FourBitFormat& format) {
  const int64_t n = outputs * inputs, blocks = ceiling(n, kFourBitBlock);
  PackedLayout layout = {{"weight", DType::u8, {ceiling(n, 2), 1}},
                         {"weight.absmax", format.is_nested ? DType::u8 : DType::f32, {blocks}},
                         {"weight.quant_map", DType::f32, {16}}};
  if (format.is_nested) {
    layout.push_back({"weight.nested_absmax", DType::f32, {ceiling(blocks, kDynamicBlock)}});
    layout.push_back({"weight.nested_quant_map", DType::f32, {256}});
  }
  layout.push_back({fmt::format("weight.quant_state.bitsandbytes__{}", format.is_nf4 ? "nf4" : "fp4"),
                    DType::u8,
                    {kStateBytes}});
  return layout;
}

std::vector<Tensor> pack_four_bit(const Tensor& weight, const FourBitFormat& format) {
  const PackedLayout layout = four_bit_layout(weight.rows(), weight.cols(), format);
  const auto& map = format.is_nf4 ? nf4_values() : fp4_values();
  const BlockCodes blocks = quantize_blockwise(weight.span<float>(), kFourBitBlock, map);
  Json state = {{"quant_type", format.is_nf4 ? "nf4" : "fp4"},
                {"blocksize", kFourBitBlock},
                {"dtype", "float16"},
                {"shape", {weight.rows(), weight.cols()}}};
  std::vector<Tensor> parts = {bytes_tensor(pack_nibbles(blocks.codes), layout[0].shape)};
  const Tensor values = Tensor::from(std::vector<float>(map.begin(), map.end()), {16});
  if (format.is_nested) {
    const NestedScales nested = nest_scales(blocks.scales);
    state["nested_blocksize"] = kDynamicBlock;
    state["nested_dtype"] = "float32";
    state["nested_offset"] = nested.offset;
    const auto& dynamic = dynamic_values();
    parts.insert(parts.end(), {bytes_tensor(nested.codes, layout[1].shape), values,
                               Tensor::from(nested.scales, layout[3].shape),
                               Tensor::from(std::vector<float>(dynamic.begin(), dynamic.end()), {256})});
  } else {
    parts.insert(parts.end(), {Tensor::from(blocks.scales, layout[1].shape), values});
  }
  std::string text = dump_json(state);
  text.resize(static_cast<size_t>(kStateBytes), ' ');
  parts.push_back(bytes_tensor({text.begin(), text.end()}, {kStateBytes}));
  return parts;
}

PackedLayout llm_int8_layout(int64_t outputs, int64_t inputs) {
  return {{"weight", DType::i8, {outputs, inputs}},
          {"SCB", DType::f32, {outputs}},
          {"weight_format", DType::u8, Shape()}};
}

std::vector<Tensor> pack_llm_int8(const Tensor& weight) {
  const Int8Matrix rows = quantize_int8_rows(weight);
  return {rows.codes, rows.scales, Tensor::zeros(Shape(), DType::u8)};
}

}  // namespace qkv
