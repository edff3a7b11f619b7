#include "qkv/nn/attention.h"

#include <cmath>

#include "qkv/core/error.h"
#include "qkv/tensor/batch_invariance.h"

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

// Every sequence cut at shift, shift + group, shift + 2 group, ... from its beginning.
ops::PackedSequences cut_into_groups(const ops::PackedSequences& sequences, int64_t group, int64_t shift) {
  ops::PackedSequences groups;
  groups.offsets.push_back(0);
  for (size_t s = 0; s + 1 < sequences.offsets.size(); ++s) {
    const int64_t begin = sequences.offsets[s], end = sequences.offsets[s + 1];
    for (int64_t cut = begin + (shift > 0 ? shift : group); cut < end; cut += group)
      groups.offsets.push_back(cut);
    if (end > begin) groups.offsets.push_back(end);
  }
  return groups;
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
  if (pass.incremental()) return out_.forward(attend_incrementally(q, k, v, heads[0], pass, layer), pass);
  if (pass.attention_group > 0) return out_.forward(attend_in_groups(q, k, v, pass), pass);
  return out_.forward(ops::attention(q, k, v, pass.sequences, spec_), pass);
}

// The paper rolls the shifted heads' tokens so that the first join the last in one group, and masks; cutting
// at other places instead leaves those two as groups of their own and needs no mask.
Tensor SelfAttention::attend_in_groups(const Tensor& q, const Tensor& k, const Tensor& v,
                                       const Pass& pass) const {
  const bool shared = config_.n_kv_heads == 1;  // both halves of the queries read the only key/value head
  require(config_.n_heads % 2 == 0 && (shared || config_.n_kv_heads % 2 == 0),
          "attention: shifted sparse attention: expected an even number of heads, found {} and {} of keys",
          config_.n_heads, config_.n_kv_heads);
  AttentionSpec half = spec_;
  half.n_heads /= 2;
  if (!shared) half.n_kv_heads /= 2;
  std::vector<Tensor> parts;
  for (int64_t i : {0, 1}) {
    const auto columns = [&](const Tensor& x, bool whole) {
      const int64_t width = x.cols() / 2;
      return whole ? x : ops::slice_cols(x, i * width, (i + 1) * width);
    };
    if (i == 1 && spec_.alibi_slopes != nullptr) half.alibi_slopes = spec_.alibi_slopes + half.n_heads;
    const int64_t shift = i == 0 ? 0 : pass.attention_group / 2;
    parts.push_back(ops::attention(columns(q, false), columns(k, shared), columns(v, shared),
                                   cut_into_groups(pass.sequences, pass.attention_group, shift), half));
  }
  return ops::concat_cols(parts);
}

// Each sequence's new tokens attend to its own cache, which they join first.
Tensor SelfAttention::attend_incrementally(Tensor q, Tensor k, const Tensor& v, const Tensor& unprepared,
                                           const Pass& pass, size_t layer) const {
  const auto cache_of = [&](size_t s) -> KvState& {
    return dynamic_cast<KvState&>(*pass.states[s]->layers[layer]);
  };
  const KvState& first = cache_of(0);
  const CacheOptions& options = first.options();
  AttentionSpec spec = spec_;
  spec.window = first.window();
  // Sinks stand just before the window, wherever that has moved: to them a query is nearer than its position.
  Tensor q_sinks;
  if (options.sinks > 0) {
    require(pass.sink_rope != nullptr, "attention sinks: expected positions that turn heads");
    q_sinks = prepare(unprepared, q_norm_, pass.sink_rope);
  }
  if (options.rotate_k) {
    for (Tensor* x : {&q, &k, &q_sinks}) {
      if (x->defined()) *x = ops::hadamard_heads(*x, config_.head_dim);
    }
  }
  std::vector<ops::CachedSequence> sequences;
  for (size_t s = 0; s < pass.states.size(); ++s) {
    const int64_t begin = pass.sequences.offsets[s], end = pass.sequences.offsets[s + 1];
    KvState& cache = cache_of(s);
    require(cache.options().is_like(options), "attention: the sequences of a pass have caches of different kinds");
    cache.append(k.row_view(begin, end), v.row_view(begin, end));
    sequences.push_back(cache.view(begin, end - begin));
  }
  Tensor mixed = Tensor::empty(q.shape(), q.dtype());
  ops::attend_cached(q, q_sinks, first.layout(), sequences, mixed, spec);
  for (size_t s = 0; s < pass.states.size(); ++s) cache_of(s).trim();
  return mixed;
}

CacheLayout SelfAttention::layout() const {
  return {config_.n_kv_heads, config_.head_dim, config_.head_dim};
}

std::unique_ptr<LayerState> SelfAttention::make_state(const CacheOptions& options) const {
  require(config_.causal, "attention: a layer that sees later tokens cannot run token by token");
  require(options.sinks == 0 || config_.alibi_slopes.empty(),
          "attention sinks: expected positions that turn heads, found biases by distance");
  return std::make_unique<KvState>(layout(), options, config_.window);
}

uint64_t SelfAttention::state_bytes(const CacheOptions& options, int64_t tokens, int64_t pass_tokens) const {
  return KvState::bytes_of(layout(), options, config_.window, tokens, pass_tokens);
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
