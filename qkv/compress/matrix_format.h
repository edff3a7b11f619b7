// How a method's matrices are written: the stored tensors of each, and what config.json says about them, as
// the libraries that load such models expect.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "qkv/core/json.h"
#include "qkv/quant/packing.h"

namespace qkv {

enum class WeightMethod : uint8_t { rtn, gptq, awq, smoothquant, int8, nf4, fp4, fp8 };

struct WeightMethodTraits {
  WeightMethod method;
  std::string_view name;
  bool calibrated;  // needs text
  std::string_view about;
};
std::span<const WeightMethodTraits> weight_methods();
std::string_view weight_method_name(WeightMethod method);
// Error naming all and the nearest.
const WeightMethodTraits& weight_method_from_name(const std::string& name);

struct RoundingOptions {
  WeightMethod method = WeightMethod::gptq;
  int bits = 4;             // rtn, gptq; awq has 4
  int64_t group = 128;      // columns with a scale of their own (rtn, gptq, awq); 0: one per row
  bool asymmetric = false;  // zero points (rtn, gptq); awq always has them
  bool act_order = false, static_groups = false;  // gptq
  double damping = 0.01;                          // gptq
  double strength = 0.5;      // smoothquant: how much of the outliers moves into the weights
  bool clip = true;           // awq
  bool nested_scales = true;  // nf4, fp4: scales are quantized, too
};

// Codes of `scheme` or, if there is none, values become parts.
struct MatrixFormat {
  std::optional<UniformScheme> scheme;
  std::function<PackedLayout(int64_t outputs, int64_t inputs)> layout;
  std::function<std::vector<Tensor>(const CodedMatrix&)> pack_codes;
  std::function<std::vector<Tensor>(const Tensor&)> pack_values;
  // Why a matrix of this shape cannot be stored so; empty if it can.
  std::function<std::string(int64_t outputs, int64_t inputs)> refusal;
  // The quantization_config; `kept` are the modules that stay as they were.
  std::function<Json(const std::vector<std::string>& kept)> config;
};
// Error for settings that the method or its format does not have.
MatrixFormat matrix_format(const RoundingOptions& options);

}  // namespace qkv
