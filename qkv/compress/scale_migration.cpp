#include "qkv/compress/scale_migration.h"

#include <algorithm>
#include <string>

#include "qkv/core/error.h"
#include "qkv/quant/awq.h"

namespace qkv {
namespace {

// "blocks.3." of "blocks.3.attn.q".
std::string block_of(const std::string& name) {
  return name.substr(0, name.find('.', name.find('.') + 1) + 1);
}

bool reads(const SharedInput& input, std::string_view role) {
  return std::any_of(input.names.begin(), input.names.end(), [&](const std::string& name) {
    return std::string_view(name).substr(block_of(name).size()) == role;
  });
}

// The norm in front of what reads the input; empty if it is none's output.
std::string norm_of(const Decoder& model, const SharedInput& input) {
  const std::string block = block_of(input.names[0]);
  const auto norms = model.config().block.norms;
  if (norms != BlockConfig::Norms::before && norms != BlockConfig::Norms::around) return "";
  for (const char* role : {"attn.q", "attn.q_a", "attn.kv_a"}) {
    if (reads(input, role)) return block + "attn_norm";
  }
  if (reads(input, "ssm.in")) return block + "ssm_norm";
  // With experts the router and all experts read it, the latter in parts.
  if (reads(input, "mlp.up")) return block + "mlp_norm";
  return "";
}

Linear* find_linear(Decoder& model, const std::string& wanted) {
  Linear* found = nullptr;
  model.visit_linears("", [&](const std::string& name, Linear& linear) {
    if (name == wanted) found = &linear;
  });
  return found;
}

Tensor divided_rows(const Tensor& matrix, const std::vector<float>& factors) {
  Tensor result = matrix.clone();
  const int64_t columns = matrix.shape().rank() == 1 ? 1 : matrix.cols();
  for (int64_t i = 0; i < result.elements(); ++i)
    result.data<float>()[i] /= factors[static_cast<size_t>(i / columns)];
  return result;
}

// Rows and bias of a linear layer.
bool divide_outputs(Decoder& model, const std::string& name, const std::vector<float>& factors) {
  Linear* linear = find_linear(model, name);
  if (linear == nullptr || linear->weight().shape()[0] != static_cast<int64_t>(factors.size())) return false;
  replace_matrix(*linear, divided_rows(matrix_of(*linear), factors));
  linear->visit("", [&](const std::string& part, Tensor& parameter) {
    if (part == "bias") parameter = divided_rows(parameter, factors);
  });
  return true;
}

bool divide_norm(Decoder& model, const std::string& norm, const std::vector<float>& factors) {
  const float offset = model.config().block.norm.gain_offset;
  bool divided = false;
  model.visit("", [&](const std::string& name, Tensor& parameter) {
    const bool gain = name == norm + ".weight";
    if (!gain && name != norm + ".bias") return;
    if (parameter.elements() != static_cast<int64_t>(factors.size())) return;
    Tensor changed = parameter.to(DType::f32).clone();
    for (size_t i = 0; i < factors.size(); ++i) {
      float& value = changed.data<float>()[i];
      value = gain ? (value + offset) / factors[i] - offset : value / factors[i];
    }
    parameter = changed;
    divided = divided || gain;
  });
  return divided;
}

}  // namespace

InputMaker maker_of(const Decoder& model, const SharedInput& input) {
  const BlockConfig& block = model.config().block;
  if (!norm_of(model, input).empty()) return InputMaker::norm;
  if (input.names.size() != 1) return InputMaker::none;
  const bool own_values = !block.latent_attention && !block.mamba && !block.mamba2 &&
                          block.attention.n_heads == block.attention.n_kv_heads && block.attention.clip == 0;
  if (reads(input, "attn.out") && own_values) return InputMaker::values;
  if (reads(input, "mlp.down") && block.mlp.gated && !block.experts) return InputMaker::up;
  return InputMaker::none;
}

bool migrate(Decoder& model, SharedInput& input, const std::vector<float>& factors) {
  const std::string block = block_of(input.names[0]);
  bool divided = false;
  switch (maker_of(model, input)) {
    case InputMaker::none:
      return false;
    case InputMaker::norm:
      divided = divide_norm(model, norm_of(model, input), factors);
      break;
    case InputMaker::values:
      divided = divide_outputs(model, block + "attn.v", factors);
      break;
    case InputMaker::up:
      divided = divide_outputs(model, block + "mlp.up", factors);
      break;
  }
  if (!divided) return false;
  for (Linear* linear : input.linears) replace_matrix(*linear, multiply_columns(matrix_of(*linear), factors));
  input.statistics.divide_columns(factors);
  return true;
}

}  // namespace qkv
