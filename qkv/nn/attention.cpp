#include "qkv/nn/attention.h"

#include <cmath>

#include "qkv/core/error.h"

namespace qkv {

SelfAttention::SelfAttention(const AttentionConfig& config)
    : config_(config),
      q_(config.channels, int64_t{config.n_heads} * config.head_dim, config.qkv_bias),
      k_(config.channels, int64_t{config.n_kv_heads} * config.head_dim, config.qkv_bias),
      v_(config.channels, int64_t{config.n_kv_heads} * config.head_dim, config.qkv_bias),
      out_(int64_t{config.n_heads} * config.head_dim, config.channels, config.out_bias) {
  spec_.n_heads = config.n_heads;
  spec_.n_kv_heads = config.n_kv_heads;
  spec_.qk_dim = spec_.v_dim = config.head_dim;
  spec_.scale = config.scale != 0 ? config.scale : 1.0f / std::sqrt(static_cast<float>(config.head_dim));
  spec_.window = config.window;
  spec_.softcap = config.softcap;
}

Tensor SelfAttention::forward(const Tensor& x, const Pass& pass, const ops::RopeTable* rope, size_t layer) const {
  Tensor q = q_.forward(x), k = k_.forward(x);  // (T, n_heads * D), (T, n_kv_heads * D)
  const Tensor v = v_.forward(x);               // (T, n_kv_heads * D)
  if (rope != nullptr) {
    q = ops::rope(q, *rope);
    k = ops::rope(k, *rope);
  }
  if (!pass.incremental()) return out_.forward(ops::attention(q, k, v, pass.sequences, spec_));

  // Each sequence's new tokens attend to its own cache, which they join first.
  Tensor mixed = Tensor::empty(q.shape(), q.dtype());
  for (size_t s = 0; s < pass.states.size(); ++s) {
    const int64_t begin = pass.sequences.offsets[s], end = pass.sequences.offsets[s + 1];
    auto& cache = dynamic_cast<KvState&>(*pass.states[s]->layers[layer]);
    cache.append(k.row_view(begin, end), v.row_view(begin, end));
    Tensor part = mixed.row_view(begin, end);
    ops::attend_cached(q.row_view(begin, end), cache.keys(), cache.values(), part, spec_);
  }
  return out_.forward(mixed);
}

std::unique_ptr<LayerState> SelfAttention::make_state() const {
  const int64_t width = int64_t{config_.n_kv_heads} * config_.head_dim;
  return std::make_unique<KvState>(width, width);
}

void SelfAttention::visit(const std::string& prefix, const ParameterVisitor& visitor) {
  q_.visit(prefix + "q.", visitor);
  k_.visit(prefix + "k.", visitor);
  v_.visit(prefix + "v.", visitor);
  out_.visit(prefix + "out.", visitor);
}

}  // namespace qkv
