// Weights of 8-bit floating point (Micikevicius et al., https://arxiv.org/abs/2209.05433) with scales that
// they are multiplied by: weight_scale_inv, one per block of `weight_block_size` (DeepSeek-V3, Qwen), or
// weight_scale, one per tensor or row.
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/formats/content.h"
#include "qkv/formats/quantized/scheme.h"

namespace qkv {

DequantizationPlan plan_fp8(const Checkpoint& stored, const JsonView& config) {
  std::optional<std::pair<int64_t, int64_t>> block;
  if (const Json* size = config.find("weight_block_size")) {
    const bool is_pair = size->is_array() && size->size() == 2 && (*size)[0].is_number_integer() &&
                         (*size)[1].is_number_integer() && (*size)[0] > 0 && (*size)[1] > 0;
    require(is_pair, "[fp8] {}: weight_block_size: expected two positive integers, found {}", stored.path(),
            shown(dump_json(*size)));
    block.emplace((*size)[0].get<int64_t>(), (*size)[1].get<int64_t>());
  }
  DequantizationPlan plan;
  for (const std::string_view scale : {"weight_scale_inv", "weight_scale"}) {
    for (const auto& prefix : modules_with(stored, scale)) {
      const QuantizedModule module(stored, "fp8", prefix);
      module.require_type(module.part("weight"), {DType::f8_e4m3, DType::f8_e5m2});
      plan.tensors.push_back(
          scaled_weight(module, scale, std::nullopt, scale == "weight_scale_inv" ? block : std::nullopt));
    }
  }
  for (const auto& entry : stored.entries()) {
    if (is_part(entry.name, {"input_scale", "input_scale_ub", "activation_scale", "output_scale", "q_scale",
                             "k_scale", "v_scale", "kv_scale"}))
      plan.dropped.push_back(entry.name);
  }
  return plan;
}

}  // namespace qkv
