#include "qkv/nn/norm.h"

#include "qkv/core/error.h"

namespace qkv {

Norm::Norm(const NormConfig& config, int64_t channels, int64_t heads) : config_(config) {
  require(heads == 0 || (config.weight && !config.bias), "norm: heads with gains of their own have no bias");
  for (int64_t h = 0; h < heads; ++h)
    head_weights_.push_back(Tensor::full({channels}, 1.0f - config.gain_offset));
  if (heads == 0 && config.weight) weight_ = Tensor::full({channels}, 1.0f - config.gain_offset);
  if (config.bias) bias_ = Tensor::zeros({channels});
}

Tensor Norm::forward(const Tensor& x) const {
  Tensor gain = weight_;
  if (!head_weights_.empty()) {
    std::vector<Tensor> rows;  // (1, channels) each
    for (const Tensor& weight : head_weights_) rows.push_back(ops::reshape(weight, {1, weight.elements()}));
    gain = ops::concat_rows(rows);
  }
  if (config_.kind == NormConfig::Kind::layer) return ops::layer_norm(x, gain, bias_, config_.eps);
  return ops::rms_norm(x, gain, config_.eps, config_.gain_offset);
}

void Norm::visit(const std::string& prefix, const ParameterVisitor& visitor) {
  if (weight_.defined()) visitor(prefix + "weight", weight_);
  for (size_t h = 0; h < head_weights_.size(); ++h)
    visitor(prefix + std::to_string(h) + ".weight", head_weights_[h]);
  if (bias_.defined()) visitor(prefix + "bias", bias_);
}

}  // namespace qkv
