#include "qkv/nn/feed_forward.h"

namespace qkv {

Mlp::Mlp(const MlpConfig& config)
    : activation_(config.activation),
      up_(config.channels, config.hidden, config.bias),
      down_(config.hidden, config.channels, config.bias) {
  if (config.gated) gate_.emplace(config.channels, config.hidden, config.bias);
}

Tensor Mlp::forward(const Tensor& x) const {
  if (!gate_) return down_.forward(ops::activation(up_.forward(x), activation_));
  return down_.forward(ops::gated(gate_->forward(x), up_.forward(x), activation_));
}

void Mlp::visit(const std::string& prefix, const ParameterVisitor& visitor) {
  if (gate_) gate_->visit(prefix + "gate.", visitor);
  up_.visit(prefix + "up.", visitor);
  down_.visit(prefix + "down.", visitor);
}

}  // namespace qkv
