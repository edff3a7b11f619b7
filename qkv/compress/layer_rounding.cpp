#include "qkv/compress/layer_rounding.h"

#include <algorithm>

#include "qkv/quant/awq.h"
#include "qkv/quant/gptq.h"

namespace qkv {
namespace {

// AWQ does not clip what makes queries and keys: their products meet in a softmax.
bool is_clipped(const std::string& name) {
  return !name.ends_with(".attn.q") && !name.ends_with(".attn.k");
}

void migrate_awq(Decoder& model, SharedInput& input, const UniformScheme& scheme,
                 const std::function<bool(const std::string&)>& wanted) {
  if (maker_of(model, input) == InputMaker::none) return;
  std::vector<Tensor> weights;
  for (size_t i = 0; i < input.names.size(); ++i) {
    if (wanted(input.names[i])) weights.push_back(matrix_of(*input.linears[i]));
  }
  if (weights.empty()) return;
  const AwqSearch search = search_awq_factors(weights, input.statistics, scheme);
  if (search.ratio > 0) migrate(model, input, search.factors);
}

void migrate_smoothquant(Decoder& model, SharedInput& input, double strength) {
  if (maker_of(model, input) != InputMaker::norm) return;
  std::vector<Tensor> weights;
  for (const Linear* linear : input.linears) weights.push_back(matrix_of(*linear));
  migrate(model, input, smoothquant_factors(weights, input.statistics, strength));
}

CodedMatrix rounded(const Tensor& weight, const std::string& name, const InputStatistics& statistics,
                    const RoundingOptions& options, const UniformScheme& scheme) {
  switch (options.method) {
    case WeightMethod::gptq:
      return gptq(weight, statistics.products(),
                  {scheme, options.act_order, options.static_groups, options.damping}, name);
    case WeightMethod::awq: {
      if (!options.clip || !is_clipped(name)) return round_to_nearest(weight, scheme);
      return round_to_nearest(limit_groups(weight, search_awq_limits(weight, statistics, scheme), scheme),
                              scheme);
    }
    default:
      return round_to_nearest(weight, scheme);
  }
}

}  // namespace

std::map<std::string, RoundedMatrix> round_layer(Decoder& model, std::vector<SharedInput>& inputs,
                                                 const RoundingOptions& options, const UniformScheme& scheme,
                                                 const std::function<bool(const std::string& name)>& wanted) {
  for (auto& input : inputs) {
    if (options.method == WeightMethod::awq) migrate_awq(model, input, scheme, wanted);
    if (options.method == WeightMethod::smoothquant) migrate_smoothquant(model, input, options.strength);
  }
  std::map<std::string, RoundedMatrix> results;
  for (auto& input : inputs) {
    for (size_t i = 0; i < input.names.size(); ++i) {
      const std::string& name = input.names[i];
      if (!wanted(name)) continue;
      const Tensor weight = matrix_of(*input.linears[i]);
      RoundedMatrix& result = results[name];
      result.codes = rounded(weight, name, input.statistics, options, scheme);
      const Tensor values = result.codes.dequantize();
      if (input.statistics.has_products()) {
        const double error = output_error(weight, values, input.statistics.products());
        const double all = output_error(weight, Tensor::zeros(weight.shape()), input.statistics.products());
        result.relative_error = all > 0 ? error / all : 0;
      }
      replace_matrix(*input.linears[i], values);
    }
  }
  return results;
}

}  // namespace qkv
