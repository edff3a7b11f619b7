// Multi-head latent attention (DeepSeek V2, arXiv 2405.04434): keys and values of all heads are products of
// one small latent per token, and positions turn a part of the queries and one key part that all heads share.
// The cache holds only the latent and that shared part.
#pragma once

#include <memory>
#include <optional>

#include "qkv/nn/kv_state.h"
#include "qkv/nn/layers.h"
#include "qkv/nn/mixer.h"
#include "qkv/nn/norm.h"

namespace qkv {

struct MlaConfig {
  int64_t channels = 0;
  int n_heads = 0;
  int64_t q_rank = 0;                  // of the queries' latent; 0: queries are one product
  int64_t kv_rank = 0;                 // of the keys' and values' latent
  int64_t nope_dim = 0, rope_dim = 0;  // parts of a query or key head: at rest, turning
  int64_t v_dim = 0;                   // of a value head
  bool bias = false;                   // of the products into latents and of the output
  float scale = 0;                     // 0: 1 / sqrt(nope_dim + rope_dim)
  NormConfig norm = {.eps = 1e-6f};    // of latents
  bool split_in_gguf = false;          // the file keeps the latent's products apart, each key head transposed
};

class Mla : public Mixer {
 public:
  explicit Mla(const MlaConfig& config);
  // Training and evaluation expand latents into keys and values. With a state, few new tokens attend to the
  // latents themselves: the product that makes keys is moved into the queries, the one that makes values
  // behind the attention.
  Tensor forward(const Tensor& x, const Pass& pass, const ops::RopeTable* rope, size_t layer) const override;
  std::unique_ptr<LayerState> make_state(const CacheOptions& options) const override;
  uint64_t state_bytes(const CacheOptions& options, int64_t tokens, int64_t pass_tokens) const override;
  void visit(const std::string& prefix, const ParameterVisitor& visitor) override;
  void visit_linears(const std::string& prefix, const LinearVisitor& visitor) override;

 private:
  Tensor queries(const Tensor& x, const Pass& pass, const ops::RopeTable& rope) const;  // (T, n_heads * (nope + rope))
  // Keys (T, n_heads * (nope + rope)) and values (T, n_heads * v_dim) of latents (T, kv_rank) and shared keys
  // (T, rope).
  std::pair<Tensor, Tensor> expand(const Tensor& latents, const Tensor& shared) const;
  // One sequence's new queries (n, ...) against its latents and shared keys, its own included, in either
  // form; off the tape.
  Tensor attend_expanded(const Tensor& q, const KvState& cache) const;
  Tensor attend_absorbed(const Tensor& q, const KvState& cache) const;
  CacheLayout layout() const { return {1, config_.kv_rank + config_.rope_dim, 0}; }

  MlaConfig config_;
  AttentionSpec spec_;  // of the expanded form
  std::optional<Linear> q_, q_a_, q_b_;
  std::optional<Norm> q_norm_;
  Linear kv_a_;       // (kv_rank + rope, C)
  Norm kv_norm_;      // (kv_rank)
  Tensor k_b_, v_b_;  // (n_heads * nope, kv_rank), (n_heads * v_dim, kv_rank)
  Linear out_;
};

}  // namespace qkv
