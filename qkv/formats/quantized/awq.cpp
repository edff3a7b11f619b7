// AWQ (Lin et al., https://arxiv.org/abs/2306.00978) as AutoAWQ stores it: 4-bit codes, eight to a word. For
// a layer of I inputs and O outputs with G groups of inputs, `version: gemm` has
//   qweight  (I, O / 8) i32    word c of a row holds outputs 8 c + 0, 2, 4, 6, 1, 3, 5, 7, from the low bits
//   up qzeros   (G, O / 8) i32    likewise scales   (G, O)            floating point
// and `version: gemv`, with the codes in order and the columns of the last two padded to a width of W words,
//   qweight  (O, I / 8) i32
//   qzeros   (O, W) i32
//   scales   (O, 8 W)
// weight[o][i] = scales[g][o] * (code - zero). (The scaling of the inputs is in the layers before.)
#include <algorithm>
#include <array>
#include <cctype>

#include "qkv/core/error.h"
#include "qkv/core/parallel.h"
#include "qkv/formats/content.h"
#include "qkv/formats/quantized/scheme.h"

namespace qkv {
namespace {

constexpr int kBits = 4;
constexpr int64_t kPerWord = 32 / kBits;
constexpr int64_t kChunk = 2;  // words of outputs that are unpacked together
// Output 8 c + k is in nibble kNibble[k] of word c: the inverse of 0, 2, 4, 6, 1, 3, 5, 7.
constexpr std::array<int64_t, 8> kNibble = {0, 4, 1, 5, 2, 6, 3, 7};

struct Layer {
  int64_t inputs = 0;
  int64_t outputs = 0;
  int64_t group_size = 0;
};

int interleaved_code(const int32_t* words, int64_t output) {
  return static_cast<int>(
      packed_code(words + output / kPerWord, 1, kNibble[static_cast<size_t>(output % kPerWord)], kBits));
}

void dequantize_gemm(const QuantizedModule& module, const Layer& layer, float* out) {
  const Tensor codes = module.read("qweight");
  const Tensor zero_codes = module.read("qzeros");
  const Tensor scales = module.floats("scales");
  const int64_t words = layer.outputs / kPerWord;
  const int32_t* code = codes.data<int32_t>();
  const int32_t* zero = zero_codes.data<int32_t>();
  const float* scale = scales.data<float>();
  parallel_for(words, kChunk, [&](int64_t begin, int64_t end) {
    for (int64_t first = begin; first < end; first += kChunk) {
      const int64_t last = std::min(first + kChunk, end);
      for (int64_t input = 0; input < layer.inputs; ++input) {
        const int64_t group = input / layer.group_size;
        for (int64_t output = first * kPerWord; output < last * kPerWord; ++output) {
          const int difference =
              interleaved_code(code + input * words, output) - interleaved_code(zero + group * words, output);
          out[output * layer.inputs + input] =
              scale[group * layer.outputs + output] * static_cast<float>(difference);
        }
      }
    }
  });
}

void dequantize_gemv(const QuantizedModule& module, const Layer& layer, float* out) {
  const Tensor codes = module.read("qweight");
  const Tensor zero_codes = module.read("qzeros");
  const Tensor scales = module.floats("scales");
  const int64_t words = layer.inputs / kPerWord;
  const int64_t width = zero_codes.cols();
  parallel_for(layer.outputs, 1, [&](int64_t begin, int64_t end) {
    for (int64_t output = begin; output < end; ++output) {
      const int32_t* code = codes.data<int32_t>() + output * words;
      const int32_t* zero = zero_codes.data<int32_t>() + output * width;
      const float* scale = scales.data<float>() + output * width * kPerWord;
      for (int64_t input = 0; input < layer.inputs; ++input) {
        const int64_t group = input / layer.group_size;
        const int difference = static_cast<int>(packed_code(code, 1, input, kBits)) -
                               static_cast<int>(packed_code(zero, 1, group, kBits));
        out[output * layer.inputs + input] = scale[group] * static_cast<float>(difference);
      }
    }
  });
}

Layer gemm_layer(const QuantizedModule& module, const TensorEntry& codes, const TensorEntry& scales) {
  Layer layer;
  layer.inputs = codes.shape[0];
  layer.outputs = codes.shape[1] * kPerWord;
  const int64_t groups = scales.shape[0];
  if (layer.inputs % groups != 0)
    module.refuse(
        fmt::format("expected groups of equal size of {} inputs, found {} groups", layer.inputs, groups));
  layer.group_size = layer.inputs / groups;
  module.require_shape(scales, Shape{groups, layer.outputs});
  module.part("qzeros", Shape{groups, codes.shape[1]});
  return layer;
}

Layer gemv_layer(const QuantizedModule& module, const TensorEntry& codes, const TensorEntry& scales,
                 const JsonView& config) {
  Layer layer;
  layer.inputs = codes.shape[1] * kPerWord;
  layer.outputs = codes.shape[0];
  layer.group_size = config.integer_or("group_size", config.integer_or("q_group_size", -1));
  if (layer.group_size <= 0) layer.group_size = layer.inputs;
  const int64_t groups = (layer.inputs + layer.group_size - 1) / layer.group_size;
  const int64_t width = scales.shape[1] / kPerWord;
  if (width * kPerWord < groups)
    module.refuse(fmt::format("expected scales of at least {} groups, found {}", groups, scales.shape.str()));
  module.require_shape(scales, Shape{layer.outputs, width * kPerWord});
  module.part("qzeros", Shape{layer.outputs, width});
  return layer;
}

}  // namespace

DequantizationPlan plan_awq(const Checkpoint& stored, const JsonView& config) {
  std::string version = config.string_or("version", "gemm");
  std::transform(version.begin(), version.end(), version.begin(),
                 [](char c) { return static_cast<char>(std::tolower(static_cast<unsigned char>(c))); });
  require(version == "gemm" || version == "gemv", "[awq] {}: version: expected gemm or gemv, found '{}'",
          stored.path(), shown(version));
  const int64_t bits = config.integer_or("bits", config.integer_or("w_bit", kBits));
  require(bits == kBits, "[awq] {}: bits: expected {}, found {}", stored.path(), kBits, bits);
  const bool is_gemm = version == "gemm";
  DequantizationPlan plan;
  for (const auto& prefix : modules_with(stored, "qweight")) {
    const QuantizedModule module(stored, "awq", prefix);
    const TensorEntry& codes = module.matrix("qweight");
    const TensorEntry& scales = module.matrix("scales");
    module.require_type(codes, {DType::i32});
    module.require_type(module.part("qzeros"), {DType::i32});
    module.require_floating(scales);
    const Layer layer =
        is_gemm ? gemm_layer(module, codes, scales) : gemv_layer(module, codes, scales, config);
    DequantizedTensor tensor{module.name("weight"), Shape{layer.outputs, layer.inputs}, {}, {}};
    tensor.parts = {module.name("qweight"), module.name("qzeros"), module.name("scales")};
    tensor.dequantize = [module, layer, is_gemm](float* out) {
      is_gemm ? dequantize_gemm(module, layer, out) : dequantize_gemv(module, layer, out);
    };
    plan.tensors.push_back(std::move(tensor));
  }
  return plan;
}

}  // namespace qkv
