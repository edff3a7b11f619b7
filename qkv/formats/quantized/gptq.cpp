// GPTQ (Frantar et al., https://arxiv.org/abs/2210.17323) as AutoGPTQ and GPTQModel store it. For a layer of
// I inputs and O outputs with B bits and G groups of inputs:
//   qweight  (I * B / 32, O) i32   codes, packed along the inputs
//   qzeros   (G, O * B / 32) i32   zero points, packed along the outputs; `checkpoint_format: gptq` stores
//                                  them minus 1, modulo 2^B, `gptq_v2` as they are
//   scales   (G, O)                floating point
//   g_idx    (I) i32               the group of each input; without it they follow each other
// weight[o][i] = scales[g][o] * (code - zero).
#include <algorithm>
#include <array>

#include "qkv/core/error.h"
#include "qkv/core/parallel.h"
#include "qkv/formats/content.h"
#include "qkv/formats/quantized/scheme.h"

namespace qkv {
namespace {

constexpr int64_t kChunk = 16;  // outputs that are unpacked together

struct Layer {
  int64_t inputs = 0;
  int64_t outputs = 0;
  int64_t groups = 0;
  int64_t group_size = 0;
  int bits = 0;
  uint32_t zero_offset = 0;
  bool has_group_index = false;
};

std::vector<int64_t> group_of_inputs(const QuantizedModule& module, const Layer& layer) {
  if (layer.has_group_index) {
    auto groups = module.integers("g_idx");
    for (const int64_t group : groups) {
      if (group < 0 || group >= layer.groups)
        module.refuse(fmt::format("g_idx: expected groups from 0 to {}, found {}", layer.groups - 1, group));
    }
    return groups;
  }
  std::vector<int64_t> groups(static_cast<size_t>(layer.inputs));
  for (int64_t i = 0; i < layer.inputs; ++i) groups[static_cast<size_t>(i)] = i / layer.group_size;
  return groups;
}

void dequantize(const QuantizedModule& module, const Layer& layer, float* out) {
  const Tensor codes = module.read("qweight");
  const Tensor zero_codes = module.read("qzeros");
  const Tensor scales = module.floats("scales");
  const std::vector<int64_t> groups = group_of_inputs(module, layer);
  const uint32_t mask = (1u << layer.bits) - 1;
  const int64_t zero_words = packed_words(layer.outputs, layer.bits);
  const int32_t* code_words = codes.data<int32_t>();
  const int32_t* zeros = zero_codes.data<int32_t>();
  const float* scale = scales.data<float>();
  parallel_for(layer.outputs, kChunk, [&](int64_t begin, int64_t end) {
    for (int64_t first = begin; first < end; first += kChunk) {
      const int64_t last = std::min(first + kChunk, end);
      std::array<int, kChunk> zero = {};
      int64_t group = -1;
      for (int64_t input = 0; input < layer.inputs; ++input) {
        if (groups[static_cast<size_t>(input)] != group) {
          group = groups[static_cast<size_t>(input)];
          for (int64_t output = first; output < last; ++output) {
            const uint32_t stored_zero = packed_code(zeros + group * zero_words, 1, output, layer.bits);
            zero[static_cast<size_t>(output - first)] =
                static_cast<int>((stored_zero + layer.zero_offset) & mask);
          }
        }
        for (int64_t output = first; output < last; ++output) {
          const auto code =
              static_cast<int>(packed_code(code_words + output, layer.outputs, input, layer.bits));
          out[output * layer.inputs + input] =
              scale[group * layer.outputs + output] *
              static_cast<float>(code - zero[static_cast<size_t>(output - first)]);
        }
      }
    }
  });
}

Layer layer_of(const QuantizedModule& module, const JsonView& config) {
  Layer layer;
  const TensorEntry& codes = module.matrix("qweight");
  const TensorEntry& scales = module.matrix("scales");
  module.require_type(codes, {DType::i32});
  module.require_floating(scales);
  layer.outputs = codes.shape[1];
  layer.groups = scales.shape[0];
  module.require_shape(scales, Shape{layer.groups, layer.outputs});
  // Some models have other bits in some layers, so the shape of the zero points decides.
  const TensorEntry& zeros = module.part("qzeros");
  module.require_type(zeros, {DType::i32});
  for (const int bits : {2, 3, 4, 8}) {
    if (zeros.shape == Shape{layer.groups, packed_words(layer.outputs, bits)}) layer.bits = bits;
  }
  if (layer.bits == 0)
    module.refuse(
        fmt::format("qzeros: expected {} rows with zero points of 2, 3, 4 or 8 bits for {} outputs, found {}",
                    layer.groups, layer.outputs, zeros.shape.str()));
  layer.inputs = codes.shape[0] * 32 / layer.bits;
  if (const TensorEntry* index = module.find("g_idx")) {
    module.require_type(*index, {DType::i32, DType::i64});
    layer.has_group_index = true;
    layer.inputs = index->shape.elements();
    module.require_shape(*index, Shape{layer.inputs});
  } else if (config.boolean_or("desc_act", false)) {
    module.refuse("expected a tensor 'g_idx' (desc_act is true), found none");
  }
  module.require_shape(codes, Shape{packed_words(layer.inputs, layer.bits), layer.outputs});
  layer.group_size = config.integer_or("group_size", -1);
  if (layer.group_size <= 0) layer.group_size = layer.inputs;
  if (!layer.has_group_index && layer.groups != (layer.inputs + layer.group_size - 1) / layer.group_size)
    module.refuse(fmt::format("expected {} groups of {} for {} inputs, found {}",
                              (layer.inputs + layer.group_size - 1) / layer.group_size, layer.group_size,
                              layer.inputs, layer.groups));
  return layer;
}

}  // namespace

DequantizationPlan plan_gptq(const Checkpoint& stored, const JsonView& config) {
  const std::string format = config.string_or("checkpoint_format", "gptq");
  require(format == "gptq" || format == "gptq_v2",
          "[gptq] {}: checkpoint_format: expected gptq or gptq_v2, found '{}'", stored.path(), shown(format));
  DequantizationPlan plan;
  for (const auto& prefix : modules_with(stored, "qweight")) {
    const QuantizedModule module(stored, "gptq", prefix);
    Layer layer = layer_of(module, config);
    layer.zero_offset = format == "gptq" ? 1 : 0;
    DequantizedTensor tensor{module.name("weight"), Shape{layer.outputs, layer.inputs}, {}, {}};
    tensor.parts = {module.name("qweight"), module.name("qzeros"), module.name("scales")};
    if (layer.has_group_index) tensor.parts.push_back(module.name("g_idx"));
    tensor.dequantize = [module, layer](float* out) { dequantize(module, layer, out); };
    plan.tensors.push_back(std::move(tensor));
  }
  return plan;
}

}  // namespace qkv
