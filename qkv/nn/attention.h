// Multi-head self-attention with grouped key/value heads (GQA: Ainslie et al., arXiv 2305.13245), rotary (Su
// et al., arXiv 2104.09864) or linearly biased positions (ALiBi: Press et al., arXiv 2108.12409) and
// everything that families vary about it.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "qkv/nn/kv_state.h"
#include "qkv/nn/layers.h"
#include "qkv/nn/mixer.h"
#include "qkv/nn/norm.h"

namespace qkv {

struct AttentionConfig {
  int64_t channels = 0;
  int n_heads = 0, n_kv_heads = 0, head_dim = 0;
  bool qkv_bias = false, out_bias = false;
  bool causal = true;
  int64_t window = 0;               // a token sees itself and window - 1 before it; 0: all
  float softcap = 0;                // of scores, 0: none
  float scale = 0;                  // 0: 1 / sqrt(head_dim)
  float clip = 0;                   // q, k and v are limited to [-clip, clip]; 0: not (OLMo, MPT)
  std::vector<float> alibi_slopes;  // (n_heads) or empty
  // Normalization of queries and keys, before they are rotated.
  enum class QkNorm : uint8_t {
    none,
    head,      // every head by itself, one gain for all of them (Qwen 3, Gemma 3)
    own_head,  // every head by itself, each with a gain of its own (StableLM 2 12B)
    whole,     // all heads together (OLMo 2)
  };
  QkNorm qk_norm = QkNorm::none;
  NormConfig qk_norm_config;
};

class SelfAttention : public Mixer {
 public:
  explicit SelfAttention(const AttentionConfig& config);
  Tensor forward(const Tensor& x, const Pass& pass, const ops::RopeTable* rope, size_t layer) const override;
  std::unique_ptr<LayerState> make_state(const CacheOptions& options) const override;
  uint64_t state_bytes(const CacheOptions& options, int64_t tokens, int64_t pass_tokens) const override;
  void visit(const std::string& prefix, const ParameterVisitor& visitor) override;
  void visit_linears(const std::string& prefix, const LinearVisitor& visitor) override;

 private:
  // q or k (T, heads * head_dim), as attention wants it.
  Tensor prepare(Tensor x, const std::optional<Norm>& norm, const ops::RopeTable* rope) const;
  // Shifted sparse attention in the pass's groups; q, k and v as they enter attention.
  Tensor attend_in_groups(const Tensor& q, const Tensor& k, const Tensor& v, const Pass& pass) const;
  // `unprepared`: the queries as they left their product, for those that meet attention sinks.
  Tensor attend_incrementally(Tensor q, Tensor k, const Tensor& v, const Tensor& unprepared, const Pass& pass,
                              size_t layer) const;
  CacheLayout layout() const;

  AttentionConfig config_;
  AttentionSpec spec_;
  Linear q_, k_, v_, out_;
  std::optional<Norm> q_norm_, k_norm_;
};

// The slopes of ALiBi for n heads: powers of 2^(-max_bias / p), p the power of two below n, and for a count
// that is no power of two every other slope of twice as many heads.
std::vector<float> alibi_slopes(int n_heads, double max_bias = 8);

}  // namespace qkv
