#include "qkv/compress/matrix_format.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"

namespace qkv {
namespace {

constexpr WeightMethodTraits kMethods[] = {
    {WeightMethod::rtn, "rtn", false, "round to nearest, 2 to 8 bits (compressed-tensors)"},
    {WeightMethod::gptq, "gptq", true,
     "error-compensated rounding, 2, 3, 4 or 8 bits (AutoGPTQ), or a --type with a scale for every group in "
     ".gguf"},
    {WeightMethod::awq, "awq", true, "activation-aware scaling, 4 bits (AutoAWQ)"},
    {WeightMethod::smoothquant, "smoothquant", true,
     "outliers moved into weights, 8 bits for both (compressed-tensors)"},
    {WeightMethod::int8, "int8", false, "LLM.int8() (bitsandbytes)"},
    {WeightMethod::nf4, "nf4", false, "4-bit NormalFloat (bitsandbytes)"},
    {WeightMethod::fp4, "fp4", false, "4-bit floating point (bitsandbytes)"},
    {WeightMethod::fp8, "fp8", false, "8-bit floating point E4M3, a scale per row (compressed-tensors)"},
};

std::string multiple_of(const char* what, int64_t found, int64_t of) {
  return found % of == 0 ? "" : fmt::format("{} {} are no multiple of {}", found, what, of);
}

std::string first_of(std::string a, std::string b) {
  return a.empty() ? b : a;
}

std::vector<Tensor> no_codes(const CodedMatrix&) {
  fail("packing: expected values, found codes");
}
std::vector<Tensor> no_values(const Tensor&) {
  fail("packing: expected codes, found values");
}
std::string never(int64_t, int64_t) {
  return "";
}

UniformScheme scheme_of(const RoundingOptions& options) {
  return {.bits = options.bits,
          .range = options.asymmetric ? CodeRange::asymmetric : CodeRange::symmetric,
          .group = options.group,
          .scale_type = DType::f16};
}

MatrixFormat gptq_format(const RoundingOptions& options) {
  require(options.bits == 2 || options.bits == 3 || options.bits == 4 || options.bits == 8,
          "gptq: expected 2, 3, 4 or 8 bits, found {}", options.bits);
  MatrixFormat format;
  const UniformScheme scheme = scheme_of(options);
  // Readers add one to the stored zero points of "gptq" without wrapping, which goes wrong for those that are
  // 0.
  const int offset = options.asymmetric ? 0 : 1;
  format.scheme = scheme;
  format.layout = [scheme](int64_t outputs, int64_t inputs) { return gptq_layout(outputs, inputs, scheme); };
  format.pack_codes = [offset](const CodedMatrix& matrix) { return pack_gptq(matrix, offset); };
  format.pack_values = no_values;
  format.refusal = [](int64_t outputs, int64_t inputs) {
    return first_of(multiple_of("inputs", inputs, 32), multiple_of("outputs", outputs, 32));
  };
  format.config = [options, offset](const std::vector<std::string>& kept) {
    Json config = {{"quant_method", "gptq"},
                   {"bits", options.bits},
                   {"group_size", options.group == 0 ? -1 : options.group},
                   {"desc_act", options.act_order},
                   {"static_groups", options.static_groups},
                   {"sym", !options.asymmetric},
                   {"damp_percent", options.damping},
                   {"true_sequential", true},
                   {"lm_head", false},
                   {"checkpoint_format", offset == 1 ? "gptq" : "gptq_v2"}};
    if (!kept.empty()) config["modules_to_not_convert"] = kept;
    return config;
  };
  return format;
}

MatrixFormat awq_format(const RoundingOptions& options) {
  require(options.bits == 4, "awq: expected 4 bits, found {}", options.bits);
  MatrixFormat format;
  const UniformScheme scheme{
      .bits = 4, .range = CodeRange::within, .group = options.group, .scale_type = DType::f16};
  format.scheme = scheme;
  format.layout = [scheme](int64_t outputs, int64_t inputs) { return awq_layout(outputs, inputs, scheme); };
  format.pack_codes = pack_awq;
  format.pack_values = no_values;
  format.refusal = [scheme](int64_t outputs, int64_t inputs) {
    return first_of(multiple_of("outputs", outputs, 8),
                    multiple_of("inputs", inputs, scheme.columns_per_group(inputs)));
  };
  format.config = [options](const std::vector<std::string>& kept) {
    return Json{{"quant_method", "awq"},
                {"bits", 4},
                {"group_size", options.group == 0 ? -1 : options.group},
                {"zero_point", true},
                {"version", "gemm"},
                {"backend", "autoawq"},
                {"modules_to_not_convert", kept.empty() ? Json(nullptr) : Json(kept)}};
  };
  return format;
}

Json compressed_tensors_config(const char* format, Json weights, Json inputs,
                               const std::vector<std::string>& kept) {
  weights["dynamic"] = false;
  Json ignored = kept;
  if (!std::count(kept.begin(), kept.end(), "lm_head")) ignored.push_back("lm_head");
  return {{"quant_method", "compressed-tensors"},
          {"format", format},
          {"quantization_status", "compressed"},
          {"config_groups",
           {{"group_0",
             {{"targets", {"Linear"}},
              {"weights", std::move(weights)},
              {"input_activations", std::move(inputs)},
              {"output_activations", nullptr}}}}},
          {"ignore", ignored}};
}

// Of activations: a scale for every token, found while running.
Json per_token(const char* type) {
  return {{"num_bits", 8}, {"type", type}, {"symmetric", true}, {"strategy", "token"}, {"dynamic", true}};
}

MatrixFormat rtn_format(const RoundingOptions& options) {
  MatrixFormat format;
  const UniformScheme scheme = scheme_of(options);
  scheme.require_valid();
  format.scheme = scheme;
  format.layout = [scheme](int64_t outputs, int64_t inputs) {
    return packed_integer_layout(outputs, inputs, scheme);
  };
  format.pack_codes = [scheme](const CodedMatrix& matrix) { return pack_integers(matrix, scheme); };
  format.pack_values = no_values;
  format.refusal = [scheme](int64_t, int64_t inputs) {
    return multiple_of("inputs", inputs, scheme.columns_per_group(inputs));
  };
  format.config = [options](const std::vector<std::string>& kept) {
    Json weights = {{"num_bits", options.bits}, {"type", "int"}, {"symmetric", !options.asymmetric}};
    weights["strategy"] = options.group == 0 ? "channel" : "group";
    weights["group_size"] = options.group == 0 ? Json(nullptr) : Json(options.group);
    return compressed_tensors_config("pack-quantized", std::move(weights), nullptr, kept);
  };
  return format;
}

MatrixFormat smoothquant_format() {
  MatrixFormat format;
  format.scheme = UniformScheme{.bits = 8, .group = 0, .scale_type = DType::f16};
  format.layout = int8_layout;
  format.pack_codes = pack_int8;
  format.pack_values = no_values;
  format.refusal = never;
  format.config = [](const std::vector<std::string>& kept) {
    return compressed_tensors_config(
        "int-quantized", {{"num_bits", 8}, {"type", "int"}, {"symmetric", true}, {"strategy", "channel"}},
        per_token("int"), kept);
  };
  return format;
}

MatrixFormat fp8_format() {
  MatrixFormat format;
  format.layout = [](int64_t outputs, int64_t inputs) { return fp8_layout(outputs, inputs, DType::f8_e4m3); };
  format.pack_codes = no_codes;
  format.pack_values = [](const Tensor& weight) {
    const Fp8Matrix matrix = quantize_fp8(weight, DType::f8_e4m3, 1, 0);
    return std::vector<Tensor>{matrix.values, matrix.scales};
  };
  format.refusal = never;
  format.config = [](const std::vector<std::string>& kept) {
    return compressed_tensors_config(
        "float-quantized", {{"num_bits", 8}, {"type", "float"}, {"symmetric", true}, {"strategy", "channel"}},
        per_token("float"), kept);
  };
  return format;
}

MatrixFormat bitsandbytes_format(const RoundingOptions& options) {
  MatrixFormat format;
  format.pack_codes = no_codes;
  format.refusal = never;
  if (options.method == WeightMethod::int8) {
    format.layout = llm_int8_layout;
    format.pack_values = pack_llm_int8;
  } else {
    const FourBitFormat four_bit{options.method == WeightMethod::nf4, options.nested_scales};
    format.layout = [four_bit](int64_t outputs, int64_t inputs) {
      return four_bit_layout(outputs, inputs, four_bit);
    };
    format.pack_values = [four_bit](const Tensor& weight) { return pack_four_bit(weight, four_bit); };
  }
  format.config = [options](const std::vector<std::string>& kept) {
    const bool four_bits = options.method != WeightMethod::int8;
    std::vector<std::string> skipped = kept;
    if (!std::count(kept.begin(), kept.end(), "lm_head")) skipped.emplace_back("lm_head");
    return Json{{"quant_method", "bitsandbytes"},
                {"load_in_4bit", four_bits},
                {"load_in_8bit", !four_bits},
                {"bnb_4bit_quant_type", options.method == WeightMethod::nf4 ? "nf4" : "fp4"},
                {"bnb_4bit_use_double_quant", four_bits && options.nested_scales},
                {"bnb_4bit_compute_dtype", "float16"},
                {"bnb_4bit_quant_storage", "uint8"},
                {"llm_int8_threshold", 6.0},
                {"llm_int8_skip_modules", skipped}};
  };
  return format;
}

}  // namespace

std::span<const WeightMethodTraits> weight_methods() {
  return kMethods;
}

std::string_view weight_method_name(WeightMethod method) {
  return std::find_if(std::begin(kMethods), std::end(kMethods),
                      [&](const WeightMethodTraits& traits) { return traits.method == method; })
      ->name;
}

const WeightMethodTraits& weight_method_from_name(const std::string& name) {
  std::vector<std::string> names;
  for (const auto& method : kMethods) {
    if (method.name == name) return method;
    names.emplace_back(method.name);
  }
  fail("method: expected one of {}; found '{}'{}", fmt::join(names, ", "), name, suggestion(name, names));
}

MatrixFormat matrix_format(const RoundingOptions& options) {
  require(options.group >= 0, "group size: expected at least 1, or 0 for one scale per row, found {}",
          options.group);
  switch (options.method) {
    case WeightMethod::rtn:
      return rtn_format(options);
    case WeightMethod::gptq:
      return gptq_format(options);
    case WeightMethod::awq:
      return awq_format(options);
    case WeightMethod::smoothquant:
      return smoothquant_format();
    case WeightMethod::fp8:
      return fp8_format();
    case WeightMethod::int8:
    case WeightMethod::nf4:
    case WeightMethod::fp4:
      return bitsandbytes_format(options);
  }
  fail("method: expected a known one");
}

}  // namespace qkv
