// Multi-head self-attention with grouped key/value heads (GQA: Ainslie et al., arXiv 2305.13245) and rotary positions.
#pragma once

#include <memory>
#include <vector>

#include "qkv/nn/layers.h"
#include "qkv/nn/pass.h"

namespace qkv {

struct AttentionConfig {
  int64_t channels = 0;
  int n_heads = 0, n_kv_heads = 0, head_dim = 0;
  bool qkv_bias = false, out_bias = false;
  int64_t window = 0;     // sliding window, 0: none
  float softcap = 0;      // of scores, 0: none
  float scale = 0;        // 0: 1 / sqrt(head_dim)
};

class SelfAttention : public Module {
 public:
  explicit SelfAttention(const AttentionConfig& config);
  // x (T, C) -> (T, C). `rope` null: no rotation. `layer` is this layer's place in each sequence's state.
  Tensor forward(const Tensor& x, const Pass& pass, const ops::RopeTable* rope, size_t layer) const;
  std::unique_ptr<LayerState> make_state() const;
  void visit(const std::string& prefix, const ParameterVisitor& visitor) override;

 private:
  AttentionConfig config_;
  AttentionSpec spec_;
  Linear q_, k_, v_, out_;
};

}  // namespace qkv
