#include "qkv/nn/attention.h"

#include <cmath>

#include "qkv/core/error.h"

namespace qkv {
namespace {

std::optional<Norm> head_norm(const AttentionConfig& config, int heads) {
  switch (config.qk_norm) {
    case AttentionConfig::QkNorm::none:
      break;
    case AttentionConfig::QkNorm::head:
      return Norm(config.qk_norm_config, config.head_dim);
    case AttentionConfig::QkNorm::own_head:
      return Norm(config.qk_norm_config, config.head_dim, heads);
    case AttentionConfig::QkNorm::whole:
      return Norm(config.qk_norm_config, int64_t{heads} * config.head_dim);
  }
  return std::nullopt;
}

}  // namespace

SelfAttention::SelfAttention(const AttentionConfig& config)
    : config_(config),
      q_(config.channels, int64_t{config.n_heads} * config.head_dim, config.qkv_bias),
      k_(config.channels, int64_t{config.n_kv_heads} * config.head_dim, config.qkv_bias),
      v_(config.channels, int64_t{config.n_kv_heads} * config.head_dim, config.qkv_bias),
      out_(int64_t{config.n_heads} * config.head_dim, config.channels, config.out_bias),
      q_norm_(head_norm(config, config.n_heads)),
      k_norm_(head_norm(config, config.n_kv_heads)) {
  spec_.n_heads = config.n_heads;
  spec_.n_kv_heads = config.n_kv_heads;
  spec_.qk_dim = spec_.v_dim = config.head_dim;
  spec_.scale = config.scale != 0 ? config.scale : 1.0f / std::sqrt(static_cast<float>(config.head_dim));
  spec_.causal = config.causal;
  spec_.window = config.window;
  spec_.softcap = config.softcap;
  require(config.alibi_slopes.empty() || static_cast<int>(config.alibi_slopes.size()) == config.n_heads,
          "attention: expected {} ALiBi slopes, found {}", config.n_heads, config.alibi_slopes.size());
  if (!config.alibi_slopes.empty()) spec_.alibi_slopes = config_.alibi_slopes.data();
}

Tensor SelfAttention::prepare(Tensor x, const std::optional<Norm>& norm, const ops::RopeTable* rope) const {
  if (config_.clip > 0) x = ops::clamp(x, config_.clip);
  if (norm) {
    if (config_.qk_norm == AttentionConfig::QkNorm::whole) {
      x = norm->forward(x);
    } else {
      const Shape heads = {x.elements() / config_.head_dim, config_.head_dim};
      x = ops::reshape(norm->forward(ops::reshape(x, heads)), x.shape());
    }
  }
  return rope == nullptr ? x : ops::rope(x, *rope);
}

Tensor SelfAttention::forward(const Tensor& x, const Pass& pass, const ops::RopeTable* rope,
                              size_t layer) const {
  const std::vector<Tensor> heads = forward_together(x, {&q_, &k_, &v_}, pass);
  const Tensor q = prepare(heads[0], q_norm_, rope);  // (T, n_heads * D)
  const Tensor k = prepare(heads[1], k_norm_, rope);  // (T, n_kv_heads * D)
  Tensor v = heads[2];                                // (T, n_kv_heads * D)
  if (config_.clip > 0) v = ops::clamp(v, config_.clip);
  if (pass.incremental()) return out_.forward(attend_incrementally(q, k, v, pass, layer), pass);
  return out_.forward(ops::attention(q, k, v, pass.sequences, spec_), pass);
}

// Each sequence's new tokens attend to its own cache, which they join first.
Tensor SelfAttention::attend_incrementally(const Tensor& q, const Tensor& k, const Tensor& v,
                                           const Pass& pass, size_t layer) const {
  Tensor mixed = Tensor::empty(q.shape(), q.dtype());
  for (size_t s = 0; s < pass.states.size(); ++s) {
    const int64_t begin = pass.sequences.offsets[s], end = pass.sequences.offsets[s + 1];
    auto& cache = dynamic_cast<KvState&>(*pass.states[s]->layers[layer]);
    cache.append(k.row_view(begin, end), v.row_view(begin, end));
    Tensor part = mixed.row_view(begin, end);
    ops::attend_cached(q.row_view(begin, end), cache.keys(), cache.values(), part, spec_);
    cache.trim();
  }
  return mixed;
}

std::unique_ptr<LayerState> SelfAttention::make_state() const {
  require(config_.causal, "attention: a layer that sees later tokens cannot run token by token");
  const int64_t width = int64_t{config_.n_kv_heads} * config_.head_dim;
  return std::make_unique<KvState>(width, width, config_.window);
}

void SelfAttention::visit(const std::string& prefix, const ParameterVisitor& visitor) {
  q_.visit(prefix + "q.", visitor);
  k_.visit(prefix + "k.", visitor);
  v_.visit(prefix + "v.", visitor);
  out_.visit(prefix + "out.", visitor);
  if (q_norm_) q_norm_->visit(prefix + "q_norm.", visitor);
  if (k_norm_) k_norm_->visit(prefix + "k_norm.", visitor);
}

void SelfAttention::visit_linears(const std::string& prefix, const LinearVisitor& visitor) {
  q_.visit_linears(prefix + "q.", visitor);
  k_.visit_linears(prefix + "k.", visitor);
  v_.visit_linears(prefix + "v.", visitor);
  out_.visit_linears(prefix + "out.", visitor);
}

std::vector<float> alibi_slopes(int n_heads, double max_bias) {
  int power = 1;
  while (2 * power <= n_heads) power *= 2;
  std::vector<float> slopes;
  for (int i = 1; i <= n_heads; ++i) {
    const double exponent =
        i <= power ? max_bias * i / power : max_bias * (2 * (i - power) - 1) / (2 * power);
    slopes.push_back(static_cast<float>(std::pow(2.0, -exponent)));
  }
  return slopes;
}

}  // namespace qkv
