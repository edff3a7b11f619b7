#include "qkv/nn/feed_forward.h"

namespace qkv {

Mlp::Mlp(const MlpConfig& config)
    : activation_(config.activation),
      up_(config.channels, config.hidden, config.bias),
      down_(config.hidden, config.channels, config.bias) {
  if (config.gated) gate_.emplace(config.channels, config.hidden, config.bias);
}

Tensor Mlp::forward(const Tensor& x, const Pass& pass) const {
  const bool gelu = activation_ == Activation::gelu_erf || activation_ == Activation::gelu_tanh;
  if (!gate_) {
    const Tensor up = up_.forward(x, pass);
    return down_.forward(pass.ggml_gelu && gelu ? ops::ggml_gelu(up) : ops::activation(up, activation_), pass);
  }
  const std::vector<Tensor> both = forward_together(x, {&*gate_, &up_}, pass);
  const Tensor &gate = both[0], &up = both[1];
  if (pass.ggml_gelu && gelu) return down_.forward(ops::multiply(ops::ggml_gelu(gate), up), pass);
  return down_.forward(ops::gated(gate, up, activation_), pass);
}

void Mlp::visit(const std::string& prefix, const ParameterVisitor& visitor) {
  if (gate_) gate_->visit(prefix + "gate.", visitor);
  up_.visit(prefix + "up.", visitor);
  down_.visit(prefix + "down.", visitor);
}

void Mlp::visit_linears(const std::string& prefix, const LinearVisitor& visitor) {
  if (gate_) gate_->visit_linears(prefix + "gate.", visitor);
  up_.visit_linears(prefix + "up.", visitor);
  down_.visit_linears(prefix + "down.", visitor);
}

}  // namespace qkv
