// bitsandbytes (Dettmers et al., https://arxiv.org/abs/2208.07339 and, for 4 bits, QLoRA,
// https://arxiv.org/abs/2305.14314).
//
// 4 bits: the weight is flattened row by row and cut into blocks of `blocksize` values;
//   weight                                  two codes per byte, the first in the high nibble; any type of
//   bytes weight.absmax                           f32, a scale per block; with double quantization u8 codes
//   weight.quant_map                        f32, what the 16 codes of NF4 or FP4 stand for
//   weight.nested_absmax, .nested_quant_map with double quantization: the same once more for the scales
//   weight.quant_state.bitsandbytes__nf4    u8, a JSON object: blocksize, shape, nested_blocksize,
//   nested_offset
// value = quant_map[code] * absmax[block], where a doubly quantized
// absmax[b] = nested_quant_map[absmax code] * nested_absmax[b / nested_blocksize] + nested_offset.
//
// LLM.int8: weight i8 and SCB f32, the largest magnitude of each row: value = code * SCB[row] / 127.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/core/parallel.h"
#include "qkv/formats/content.h"
#include "qkv/formats/quantized/scheme.h"

namespace qkv {
namespace {

constexpr std::string_view kState = ".quant_state.bitsandbytes__";
constexpr int64_t kCodes = 16;
constexpr int64_t kNestedCodes = 256;
// How bitsandbytes spells 1 / 127.
constexpr float kRowScale = 7.874015718698502e-3f;

int64_t ceiling(int64_t a, int64_t b) {
  return a / b + (a % b != 0);
}

struct FourBits {
  int64_t elements = 0;
  int64_t block = 0;
  bool is_nested = false;
  int64_t nested_block = 1;
  float nested_offset = 0;
};

// The scale of each block.
std::vector<float> block_scales(const QuantizedModule& module, const FourBits& layer) {
  const Tensor absmax = module.read("weight.absmax").to(DType::f32);
  std::vector<float> scales = absmax.to_floats();
  if (!layer.is_nested) return scales;
  const std::vector<float> map = module.floats("weight.nested_quant_map").to_floats();
  const std::vector<float> outer = module.floats("weight.nested_absmax").to_floats();
  for (size_t i = 0; i < scales.size(); ++i) {
    const float scaled =
        map[static_cast<size_t>(scales[i])] * outer[i / static_cast<size_t>(layer.nested_block)];
    scales[i] = scaled + layer.nested_offset;
  }
  return scales;
}

void dequantize(const QuantizedModule& module, const FourBits& layer, float* out) {
  const Tensor codes = module.read("weight");
  const std::vector<float> map = module.floats("weight.quant_map").to_floats();
  const std::vector<float> scales = block_scales(module, layer);
  const std::byte* bytes = codes.raw();
  parallel_for(ceiling(layer.elements, layer.block), 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * layer.block; i < std::min(end * layer.block, layer.elements); ++i) {
      const int byte = std::to_integer<int>(bytes[i / 2]);
      const int code = i % 2 == 0 ? byte >> 4 : byte & 15;
      out[i] = map[static_cast<size_t>(code)] * scales[static_cast<size_t>(i / layer.block)];
    }
  });
}

// The JSON object that the tensor `state` is the text of.
Json read_state(const QuantizedModule& module, const std::string& part) {
  module.require_type(module.part(part), {DType::u8});
  const Tensor bytes = module.read(part);
  Json json = parse_json({reinterpret_cast<const char*>(bytes.raw()), bytes.bytes()}, module.name(part));
  if (!json.is_object())
    module.refuse(fmt::format("{}: expected an object, found {}", part, json.type_name()));
  return json;
}

int64_t positive(const QuantizedModule& module, const JsonView& state, std::string_view key) {
  const int64_t value = state.integer(key);
  if (value <= 0 || value > (int64_t{1} << 31))
    module.refuse(fmt::format("{}: expected an integer from 1 to 2^31, found {}", key, value));
  return value;
}

Shape shape_of(const QuantizedModule& module, const Json& json) {
  const auto it = json.find("shape");
  if (it == json.end() || !it->is_array() || it->empty() || it->size() > Shape::kMaximumRank)
    module.refuse(fmt::format("shape: expected a list of 1 to {} integers, found {}",
                              int{Shape::kMaximumRank}, it == json.end() ? "none" : shown(dump_json(*it))));
  std::vector<int64_t> dims;
  for (const auto& dim : *it) {
    if (!dim.is_number_integer() || dim.get<int64_t>() < 0)
      module.refuse(fmt::format("shape: expected integers from 0 up, found {}", shown(dump_json(dim))));
    dims.push_back(dim.get<int64_t>());
  }
  try {
    return Shape(dims);
  } catch (const Error& error) {
    module.refuse(error.what());
  }
}

void require_elements(const QuantizedModule& module, std::string_view part, int64_t expected) {
  const int64_t found = module.part(part).shape.elements();
  if (found != expected)
    module.refuse(fmt::format("{}: expected {} elements, found {}", part, expected, found));
}

DequantizedTensor four_bit_weight(const QuantizedModule& module, const std::string& state_part) {
  const Json json = read_state(module, state_part);
  const JsonView state(json, module.name(state_part));
  const Shape shape = shape_of(module, json);
  FourBits layer;
  layer.elements = shape.elements();
  layer.block = positive(module, state, "blocksize");
  const int64_t blocks = ceiling(layer.elements, layer.block);
  const TensorEntry& codes = module.part("weight");
  if (codes.bytes != static_cast<uint64_t>(ceiling(layer.elements, 2)))
    module.refuse(fmt::format("weight: expected {} bytes for the shape {}, found {}",
                              ceiling(layer.elements, 2), shape.str(), codes.bytes));
  require_elements(module, "weight.absmax", blocks);
  require_elements(module, "weight.quant_map", kCodes);
  module.require_floating(module.part("weight.quant_map"));
  DequantizedTensor result{module.name("weight"), shape, {}, {}};
  result.parts = {module.name("weight"), module.name("weight.absmax"), module.name("weight.quant_map"),
                  module.name(state_part)};
  layer.is_nested = module.find("weight.nested_absmax") != nullptr;
  if (layer.is_nested) {
    module.require_type(module.part("weight.absmax"), {DType::u8});
    layer.nested_block = positive(module, state, "nested_blocksize");
    layer.nested_offset = static_cast<float>(state.number("nested_offset"));
    require_elements(module, "weight.nested_absmax", ceiling(blocks, layer.nested_block));
    require_elements(module, "weight.nested_quant_map", kNestedCodes);
    for (const std::string_view part : {"weight.nested_absmax", "weight.nested_quant_map"}) {
      module.require_floating(module.part(part));
      result.parts.push_back(module.name(part));
    }
  } else {
    module.require_floating(module.part("weight.absmax"));
  }
  result.dequantize = [module, layer](float* out) { dequantize(module, layer, out); };
  return result;
}

DequantizedTensor int8_weight(const QuantizedModule& module) {
  const TensorEntry& codes = module.matrix("weight");
  module.require_type(codes, {DType::i8});
  const int64_t rows = codes.shape[0];
  const int64_t cols = codes.shape[1];
  require_elements(module, "SCB", rows);
  module.require_floating(module.part("SCB"));
  DequantizedTensor result{
      module.name("weight"), codes.shape, {module.name("weight"), module.name("SCB")}, {}};
  if (module.find("weight_format") != nullptr) {
    require_elements(module, "weight_format", 1);
    module.require_type(module.part("weight_format"), {DType::u8});
    if (module.read("weight_format").span<uint8_t>()[0] != 0)
      module.refuse("weight_format: expected 0 (row by row), found a layout of some GPU");
    result.parts.push_back(module.name("weight_format"));
  }
  result.dequantize = [module, rows, cols](float* out) {
    const Tensor codes = module.read("weight");
    const Tensor scales = module.floats("SCB");
    const int8_t* code = codes.data<int8_t>();
    parallel_for(rows, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin * cols; i < end * cols; ++i)
        out[i] = static_cast<float>(code[i]) * scales.data<float>()[i / cols] * kRowScale;
    });
  };
  return result;
}

}  // namespace

DequantizationPlan plan_bitsandbytes(const Checkpoint& stored, const JsonView&) {
  DequantizationPlan plan;
  for (const auto& entry : stored.entries()) {
    const size_t state = entry.name.find(".weight" + std::string(kState));
    if (state == std::string::npos) continue;
    const QuantizedModule module(stored, "bitsandbytes", entry.name.substr(0, state));
    plan.tensors.push_back(four_bit_weight(module, entry.name.substr(state + 1)));
  }
  for (const auto& prefix : modules_with(stored, "SCB"))
    plan.tensors.push_back(int8_weight(QuantizedModule(stored, "bitsandbytes", prefix)));
  return plan;
}

}  // namespace qkv
