// The compressed-tensors library's formats (vLLM, LLM Compressor):
//
// pack-quantized, for a layer of I inputs and O outputs with B bits and G groups of inputs:
//   weight_packed      (O, ceil(I * B / 32)) i32   codes plus 2^(B-1), packed along the inputs
//   weight_shape       (2)                         O, I
//   weight_scale       (O, G), (O, 1) or (1)
//   weight_zero_point  (ceil(O * B / 32), G) i32   asymmetric ones: plus 2^(B-1), packed along the outputs
//   weight_g_idx       (I)                         the group of each input, where they do not follow each
//   other
// int-quantized and naive-quantized: weight i8, weight_scale, weight_zero_point i8 of the scales' shape.
// float-quantized: weight f8 and weight_scale, one per tensor, row or block (`block_structure`).
// value = (code - zero point) * scale.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/core/parallel.h"
#include "qkv/formats/content.h"
#include "qkv/formats/quantized/scheme.h"

namespace qkv {
namespace {

constexpr std::string_view kMethod = "compressed-tensors";
constexpr std::string_view kFormats[] = {"pack-quantized",  "int-quantized",   "naive-quantized",
                                         "float-quantized", "mixed-precision", "dense"};

// What the configuration says about weights, in any of its groups.
struct Weights {
  std::vector<int> bits;
  std::optional<std::pair<int64_t, int64_t>> block;
};

void require_known_format(const Checkpoint& stored, std::string_view format) {
  if (std::find(std::begin(kFormats), std::end(kFormats), format) != std::end(kFormats)) return;
  fail("[{}] {}: format: expected one of {}; found '{}'", kMethod, stored.path(), fmt::join(kFormats, ", "),
       shown(format));
}

Weights read_groups(const Checkpoint& stored, const JsonView& config) {
  Weights weights;
  if (!config.has("config_groups")) return weights;
  const JsonView groups = config.object("config_groups");
  for (const auto& [name, value] : groups.json().items()) {
    const JsonView group = groups.object(name);
    if (group.has("format")) require_known_format(stored, group.string("format"));
    if (!group.has("weights")) continue;
    const JsonView settings = group.object("weights");
    const int64_t bits = settings.integer("num_bits");
    require(bits >= 1 && bits <= 8, "[{}] {}: num_bits: expected 1 to 8, found {}", kMethod, stored.path(),
            bits);
    weights.bits.push_back(static_cast<int>(bits));
    if (const Json* block = settings.find("block_structure")) {
      const bool is_pair = block->is_array() && block->size() == 2 && (*block)[0].is_number_integer() &&
                           (*block)[1].is_number_integer() && (*block)[0] > 0 && (*block)[1] > 0;
      require(is_pair, "[{}] {}: block_structure: expected two positive integers, found {}", kMethod,
              stored.path(), shown(dump_json(*block)));
      weights.block.emplace((*block)[0].get<int64_t>(), (*block)[1].get<int64_t>());
    }
  }
  return weights;
}

struct PackedLayer {
  int64_t outputs = 0;
  int64_t inputs = 0;
  int64_t groups = 0;  // of inputs; 1 for one scale per output
  int bits = 0;
  bool has_zeros = false;
  bool has_group_index = false;
  bool has_one_scale = false;
};

std::vector<int64_t> group_of_inputs(const QuantizedModule& module, const PackedLayer& layer) {
  std::vector<int64_t> groups(static_cast<size_t>(layer.inputs));
  const int64_t size = std::max<int64_t>(layer.inputs / layer.groups, 1);
  for (int64_t i = 0; i < layer.inputs; ++i) groups[static_cast<size_t>(i)] = i / size;
  if (!layer.has_group_index) return groups;
  std::vector<int64_t> index = module.integers("weight_g_idx");
  // -1 says that there is no order.
  if (std::find(index.begin(), index.end(), -1) != index.end()) return groups;
  for (const int64_t group : index) {
    if (group < 0 || group >= layer.groups)
      module.refuse(
          fmt::format("weight_g_idx: expected groups from 0 to {}, found {}", layer.groups - 1, group));
  }
  return index;
}

void dequantize(const QuantizedModule& module, const PackedLayer& layer, float* out) {
  const Tensor codes = module.read("weight_packed");
  const Tensor scales = module.floats("weight_scale");
  const Tensor zero_codes = layer.has_zeros ? module.read("weight_zero_point") : Tensor();
  const std::vector<int64_t> groups = group_of_inputs(module, layer);
  const int offset = 1 << (layer.bits - 1);
  const int64_t words = packed_words(layer.inputs, layer.bits);
  parallel_for(layer.outputs, 1, [&](int64_t begin, int64_t end) {
    std::vector<int> zeros(static_cast<size_t>(layer.groups), offset);
    for (int64_t output = begin; output < end; ++output) {
      for (int64_t group = 0; layer.has_zeros && group < layer.groups; ++group)
        zeros[static_cast<size_t>(group)] = static_cast<int>(
            packed_code(zero_codes.data<int32_t>() + group, layer.groups, output, layer.bits));
      const int32_t* code = codes.data<int32_t>() + output * words;
      const float* scale = scales.data<float>() + (layer.has_one_scale ? 0 : output * layer.groups);
      for (int64_t input = 0; input < layer.inputs; ++input) {
        const int64_t group = groups[static_cast<size_t>(input)];
        const int difference =
            static_cast<int>(packed_code(code, 1, input, layer.bits)) - zeros[static_cast<size_t>(group)];
        out[output * layer.inputs + input] = static_cast<float>(difference) * scale[group];
      }
    }
  });
}

DequantizedTensor packed_weight(const QuantizedModule& module, const Weights& weights) {
  PackedLayer layer;
  const TensorEntry& codes = module.matrix("weight_packed");
  const TensorEntry& scales = module.part("weight_scale");
  module.require_type(codes, {DType::i32});
  module.require_floating(scales);
  module.part("weight_shape", Shape{2});
  const std::vector<int64_t> dims = module.integers("weight_shape");
  // The shape is what the file says about itself: it must go with the sizes of the tensors.
  layer.outputs = dims[0];
  layer.inputs = dims[1];
  for (const int bits : weights.bits) {
    if (layer.outputs == codes.shape[0] && layer.inputs >= 1 && layer.inputs <= codes.shape[1] * 32 &&
        packed_words(layer.inputs, bits) == codes.shape[1])
      layer.bits = bits;
  }
  if (layer.bits == 0)
    module.refuse(fmt::format(
        "weight_packed: expected a weight ({}, {}) of {} bits, found {}", layer.outputs, layer.inputs,
        weights.bits.empty() ? "?" : fmt::format("{}", fmt::join(weights.bits, " or ")), codes.shape.str()));
  layer.has_one_scale = scales.shape.elements() == 1;
  layer.groups = scales.shape.rank() == 2 ? scales.shape[1] : 1;
  if (!layer.has_one_scale && (scales.shape.elements() != layer.outputs * layer.groups || layer.groups == 0 ||
                               scales.shape[0] != layer.outputs || layer.inputs % layer.groups != 0))
    module.refuse(
        fmt::format("weight_scale: expected one of each output and group of equal size of {} x {}, found {}",
                    layer.outputs, layer.inputs, scales.shape.str()));
  DequantizedTensor result{module.name("weight"), Shape{layer.outputs, layer.inputs}, {}, {}};
  result.parts = {codes.name, scales.name, module.name("weight_shape")};
  if (module.find("weight_zero_point") != nullptr) {
    layer.has_zeros = true;
    module.require_type(
        module.part("weight_zero_point", Shape{packed_words(layer.outputs, layer.bits), layer.groups}),
        {DType::i32});
    result.parts.push_back(module.name("weight_zero_point"));
  }
  if (module.find("weight_g_idx") != nullptr) {
    layer.has_group_index = true;
    module.require_type(module.part("weight_g_idx", Shape{layer.inputs}), {DType::i32, DType::i64});
    result.parts.push_back(module.name("weight_g_idx"));
  }
  result.dequantize = [module, layer](float* out) { dequantize(module, layer, out); };
  return result;
}

}  // namespace

DequantizationPlan plan_compressed_tensors(const Checkpoint& stored, const JsonView& config) {
  require_known_format(stored, config.string_or("format", "dense"));
  if (config.has("sparsity_config") && !config.object("sparsity_config").json().empty()) {
    const std::string format = config.object("sparsity_config").string_or("format", "dense");
    require(format == "dense", "[{}] {}: sparsity_config: expected the format dense, found '{}'", kMethod,
            stored.path(), shown(format));
  }
  require(!config.has("transform_config") || config.object("transform_config").json().empty(),
          "[{}] {}: transform_config: expected none, found transformed weights", kMethod, stored.path());
  const Weights weights = read_groups(stored, config);
  DequantizationPlan plan;
  for (const auto& prefix : modules_with(stored, "weight_scale")) {
    const QuantizedModule module(stored, kMethod, prefix);
    if (module.find("weight_packed") != nullptr) {
      plan.tensors.push_back(packed_weight(module, weights));
      continue;
    }
    const TensorEntry& weight = module.matrix("weight");
    module.require_type(weight, {DType::i8, DType::f8_e4m3});
    const bool is_integer = weight.type == DType::i8;
    const bool has_zeros = module.find("weight_zero_point") != nullptr;
    auto tensor = scaled_weight(
        module, "weight_scale",
        is_integer && has_zeros ? std::optional<std::string>("weight_zero_point") : std::nullopt,
        module.part("weight_scale").shape.elements() > weight.shape[0] ? weights.block : std::nullopt);
    if (!is_integer && has_zeros) tensor.parts.push_back(module.name("weight_zero_point"));
    plan.tensors.push_back(std::move(tensor));
  }
  for (const auto& entry : stored.entries()) {
    if (is_part(entry.name, {"input_scale", "input_zero_point", "output_scale", "output_zero_point",
                             "q_scale", "k_scale", "v_scale", "k_zero_point", "v_zero_point"}))
      plan.dropped.push_back(entry.name);
  }
  return plan;
}

}  // namespace qkv
