#include "qkv/models/decoder_block.h"

namespace qkv {
namespace {

std::unique_ptr<Mixer> make_mixer(const BlockConfig& config) {
  if (config.mamba) return std::make_unique<Mamba>(*config.mamba);
  if (config.mamba2) return std::make_unique<Mamba2>(*config.mamba2);
  if (config.latent_attention) return std::make_unique<Mla>(*config.latent_attention);
  return std::make_unique<SelfAttention>(config.attention);
}

std::unique_ptr<FeedForward> make_feed_forward(const BlockConfig& config) {
  if (config.mamba || config.mamba2) return nullptr;
  if (config.experts) return std::make_unique<MixtureOfExperts>(*config.experts);
  return std::make_unique<Mlp>(config.mlp);
}

Tensor normed(const std::optional<Norm>& norm, const Tensor& x) {
  return norm ? norm->forward(x) : x;
}

}  // namespace

DecoderBlock::DecoderBlock(const BlockConfig& config)
    : parallel_(config.parallel),
      residual_norms_(config.norms == BlockConfig::Norms::residual),
      has_experts_(config.experts.has_value()),
      mixer_(make_mixer(config)),
      feed_forward_(make_feed_forward(config)),
      mixer_name_(config.mamba || config.mamba2 ? "ssm" : "attn") {
  const int64_t channels = config.attention.channels;
  if (config.norms == BlockConfig::Norms::before || config.norms == BlockConfig::Norms::around) {
    attention_norm_.emplace(config.norm, channels);
    if (feed_forward_ && !(config.parallel && config.shared_norm)) mlp_norm_.emplace(config.norm, channels);
  }
  if (config.norms != BlockConfig::Norms::before) {
    attention_post_norm_.emplace(config.norm, channels);
    if (feed_forward_) mlp_post_norm_.emplace(config.norm, channels);
  }
}

Tensor DecoderBlock::forward(const Tensor& x, const Pass& pass, const ops::RopeTable* rope,
                             size_t layer) const {
  const auto drop = [&](const Tensor& y, uint64_t site) {
    return ops::dropout(y, pass.dropout, pass.dropout_seed, pass.dropout_stream + 16 * (layer + 1) + site);
  };
  // The residual stream may be wider (f32) than what the mixer computes in.
  const Tensor input = ops::cast(normed(attention_norm_, x), pass.compute_type);
  Tensor mixed = mixer_->forward(input, pass, rope, layer);
  if (!residual_norms_) mixed = normed(attention_post_norm_, mixed);
  Tensor h = ops::add(x, ops::cast(drop(mixed, 0), x.dtype()));
  if (residual_norms_) h = normed(attention_post_norm_, h);
  if (!feed_forward_) return h;

  Tensor fed = parallel_ ? feed_forward_->forward(mlp_norm_ ? mlp_norm_->forward(x) : input, pass)
                         : feed_forward_->forward(normed(mlp_norm_, h), pass);
  if (!residual_norms_) fed = normed(mlp_post_norm_, fed);
  h = ops::add(h, drop(fed, 1));
  return residual_norms_ ? normed(mlp_post_norm_, h) : h;
}

void DecoderBlock::visit(const std::string& prefix, const ParameterVisitor& visitor) {
  if (attention_norm_) attention_norm_->visit(prefix + mixer_name_ + "_norm.", visitor);
  mixer_->visit(prefix + mixer_name_ + ".", visitor);
  if (attention_post_norm_) attention_post_norm_->visit(prefix + mixer_name_ + "_post_norm.", visitor);
  if (mlp_norm_) mlp_norm_->visit(prefix + "mlp_norm.", visitor);
  if (feed_forward_) feed_forward_->visit(prefix + "mlp.", visitor);
  if (mlp_post_norm_) mlp_post_norm_->visit(prefix + "mlp_post_norm.", visitor);
}

void DecoderBlock::visit_linears(const std::string& prefix, const LinearVisitor& visitor) {
  mixer_->visit_linears(prefix + mixer_name_ + ".", visitor);
  if (feed_forward_) feed_forward_->visit_linears(prefix + "mlp.", visitor);
}

}  // namespace qkv
