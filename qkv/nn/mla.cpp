#include "qkv/nn/mla.h"

#include <cmath>

#include "qkv/core/error.h"
#include "qkv/tensor/batch_invariance.h"

namespace qkv {

Mla::Mla(const MlaConfig& config)
    : config_(config),
      kv_a_(config.channels, config.kv_rank + config.rope_dim, config.bias),
      kv_norm_(config.norm, config.kv_rank),
      k_b_(Tensor::placeholder({config.n_heads * config.nope_dim, config.kv_rank})),
      v_b_(Tensor::placeholder({config.n_heads * config.v_dim, config.kv_rank})),
      out_(config.n_heads * config.v_dim, config.channels, config.bias) {
  const int64_t q_width = config.n_heads * (config.nope_dim + config.rope_dim);
  if (config.q_rank > 0) {
    q_a_.emplace(config.channels, config.q_rank, config.bias);
    q_norm_.emplace(config.norm, config.q_rank);
    q_b_.emplace(config.q_rank, q_width, false);
  } else {
    q_.emplace(config.channels, q_width, false);
  }
  spec_.n_heads = spec_.n_kv_heads = config.n_heads;
  spec_.qk_dim = static_cast<int>(config.nope_dim + config.rope_dim);
  spec_.v_dim = static_cast<int>(config.v_dim);
  spec_.scale = config.scale != 0 ? config.scale : 1.0f / std::sqrt(static_cast<float>(spec_.qk_dim));
}

Tensor Mla::queries(const Tensor& x, const Pass& pass, const ops::RopeTable& rope) const {
  const Tensor q = q_ ? q_->forward(x, pass) : q_b_->forward(q_norm_->forward(q_a_->forward(x, pass)), pass);
  ops::RopeTable of_heads = rope;  // the last part of every head turns
  of_heads.head_dim = spec_.qk_dim;
  of_heads.offset = config_.nope_dim;
  return ops::rope(q, of_heads);
}

std::pair<Tensor, Tensor> Mla::expand(const Tensor& latents, const Tensor& shared) const {
  return {ops::append_to_heads(ops::linear(latents, k_b_), shared, config_.n_heads),
          ops::linear(latents, v_b_)};
}

Tensor Mla::forward(const Tensor& x, const Pass& pass, const ops::RopeTable* rope, size_t layer) const {
  require(rope != nullptr && rope->head_dim == config_.rope_dim,
          "latent attention: expected the angles of {} dimensions", config_.rope_dim);
  const Tensor q = queries(x, pass, *rope);
  const Tensor kv = kv_a_.forward(x, pass);  // (T, kv_rank + rope)
  const Tensor latents = kv_norm_.forward(ops::slice_cols(kv, 0, config_.kv_rank));
  const Tensor shared = ops::rope(ops::slice_cols(kv, config_.kv_rank, kv.cols()), *rope);
  if (!pass.incremental()) {
    const auto [k, v] = expand(latents, shared);
    return out_.forward(ops::attention(q, k, v, pass.sequences, spec_), pass);
  }

  const Tensor rows = ops::concat_cols({latents, shared});
  Tensor mixed = Tensor::empty({x.rows(), config_.n_heads * config_.v_dim}, x.dtype());
  for (size_t s = 0; s < pass.states.size(); ++s) {
    const int64_t begin = pass.sequences.offsets[s], end = pass.sequences.offsets[s + 1];
    auto& cache = dynamic_cast<KvState&>(*pass.states[s]->layers[layer]);
    const int64_t n = batch_invariant() ? 1 : end - begin;
    for (int64_t first = begin; first < end; first += n) {
      cache.append(rows.row_view(first, first + n));
      const Tensor part = q.row_view(first, first + n);
      // Products per head and cached token of either form, whichever is less. Expanding has a cost of its own
      // per cached token, attending to latents one per score.
      const int64_t heads = config_.nope_dim + config_.v_dim;
      const int64_t expanded = config_.kv_rank * heads + n * (heads + config_.rope_dim);
      const int64_t absorbed = n * (2 * config_.kv_rank + config_.rope_dim);
      mixed.row_view(first, first + n)
          .copy_from(expanded < absorbed ? attend_expanded(part, cache) : attend_absorbed(part, cache));
    }
  }
  return out_.forward(mixed, pass);
}

Tensor Mla::attend_expanded(const Tensor& q, const KvState& cache) const {
  const NoGrad off;
  const Tensor cached = cache.keys(0, q.dtype());
  const auto [k, v] = expand(ops::slice_cols(cached, 0, config_.kv_rank),
                             ops::slice_cols(cached, config_.kv_rank, cached.cols()));
  Tensor out = Tensor::empty({q.rows(), v.cols()}, q.dtype());
  ops::attend_cached(q, k, v, out, spec_);
  return out;
}

// q_nope . (K_b c) = (K_b^T q_nope) . c, so that the latents are the keys of all heads, and values, too: V_b
// comes after.
Tensor Mla::attend_absorbed(const Tensor& q, const KvState& cache) const {
  const NoGrad off;
  std::vector<Tensor> parts;
  for (int64_t h = 0; h < config_.n_heads; ++h) {
    const int64_t begin = h * spec_.qk_dim, turning = begin + config_.nope_dim;
    const Tensor k_b = k_b_.row_view(h * config_.nope_dim, (h + 1) * config_.nope_dim);  // (nope, kv_rank)
    parts.push_back(ops::linear_backward_input(ops::slice_cols(q, begin, turning), k_b));
    parts.push_back(ops::slice_cols(q, turning, turning + config_.rope_dim));
  }
  AttentionSpec spec = spec_;
  spec.n_kv_heads = 1;
  spec.qk_dim = static_cast<int>(config_.kv_rank + config_.rope_dim);
  spec.v_dim = static_cast<int>(config_.kv_rank);
  Tensor mixed = Tensor::empty({q.rows(), config_.n_heads * config_.kv_rank}, q.dtype());
  const ops::CachedSequence sequence = cache.view(0, q.rows());
  ops::attend_cached(ops::concat_cols(parts), {}, cache.layout(), {&sequence, 1}, mixed, spec);

  std::vector<Tensor> values;
  for (int64_t h = 0; h < config_.n_heads; ++h) {
    const Tensor v_b = v_b_.row_view(h * config_.v_dim, (h + 1) * config_.v_dim);  // (v_dim, kv_rank)
    values.push_back(
        ops::linear(ops::slice_cols(mixed, h * config_.kv_rank, (h + 1) * config_.kv_rank), v_b));
  }
  return ops::concat_cols(values);
}

std::unique_ptr<LayerState> Mla::make_state(const CacheOptions& options) const {
  require(!options.rotate_k, "latent attention: its cache has no key heads to rotate");
  require(options.window == 0, "latent attention: its cache has no attention sinks");
  return std::make_unique<KvState>(layout(), options);
}

uint64_t Mla::state_bytes(const CacheOptions& options, int64_t tokens, int64_t pass_tokens) const {
  return KvState::bytes_of(layout(), options, 0, tokens, pass_tokens);
}

void Mla::visit(const std::string& prefix, const ParameterVisitor& visitor) {
  if (q_) q_->visit(prefix + "q.", visitor);
  if (q_a_) q_a_->visit(prefix + "q_a.", visitor);
  if (q_norm_) q_norm_->visit(prefix + "q_a_norm.", visitor);
  if (q_b_) q_b_->visit(prefix + "q_b.", visitor);
  kv_a_.visit(prefix + "kv_a.", visitor);
  kv_norm_.visit(prefix + "kv_a_norm.", visitor);
  visitor(prefix + "k_b.weight", k_b_);
  visitor(prefix + "v_b.weight", v_b_);
  out_.visit(prefix + "out.", visitor);
}

void Mla::visit_linears(const std::string& prefix, const LinearVisitor& visitor) {
  if (q_) q_->visit_linears(prefix + "q.", visitor);
  if (q_a_) q_a_->visit_linears(prefix + "q_a.", visitor);
  if (q_b_) q_b_->visit_linears(prefix + "q_b.", visitor);
  kv_a_.visit_linears(prefix + "kv_a.", visitor);
  out_.visit_linears(prefix + "out.", visitor);
}

}  // namespace qkv
