// Llama 1/2/3 (Touvron et al., arXiv 2302.13971, 2307.09288; Llama 3, arXiv 2407.21783): pre-norm RMSNorm, rotary
// positions, grouped-query attention, SwiGLU.
#pragma once

#include "qkv/models/model.h"
#include "qkv/nn/attention.h"
#include "qkv/nn/layers.h"
#include "qkv/nn/rope.h"

namespace qkv {

struct LlamaConfig {
  int64_t vocabulary = 0, channels = 0, hidden = 0, layers = 0;
  int heads = 0, kv_heads = 0, head_dim = 0;
  int64_t max_positions = 2048;
  double norm_eps = 1e-5;
  bool attention_bias = false, mlp_bias = false, tied_embeddings = false;
  Activation activation = Activation::silu;
  RopeConfig rope;
  // Error naming the key if a size is missing, not positive, or does not divide.
  static LlamaConfig from_hf(const JsonView& config);
};

class Llama : public Model {
 public:
  // `source` is the config.json it came from (kept for keys that do not change the computation), or an empty object.
  Llama(const LlamaConfig& config, const Json& source);
  ~Llama() override;

  const ModelInfo& info() const override { return info_; }
  Tensor forward(const std::vector<int32_t>& tokens, const Pass& pass) const override;
  const Tensor& head() const override { return config_.tied_embeddings ? embedding_ : head_; }
  SequenceState make_state() const override;
  std::vector<WeightRow> weight_table() const override;
  Json hf_config() const override;
  void visit(const std::string& prefix, const ParameterVisitor& visitor) override;
  const LlamaConfig& config() const { return config_; }

 private:
  struct Block;
  LlamaConfig config_;
  std::unique_ptr<Json> source_;
  ModelInfo info_;
  Rope rope_;
  Tensor embedding_;  // (V, C)
  std::vector<std::unique_ptr<Block>> blocks_;
  RmsNorm norm_;
  Tensor head_;  // (V, C); undefined where tied
};

}  // namespace qkv
