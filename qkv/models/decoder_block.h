// One transformer block: attention and a feed-forward network around a residual stream, with everything that
// families vary about where norms stand and what runs beside what.
#pragma once

#include <memory>
#include <optional>

#include "qkv/nn/attention.h"
#include "qkv/nn/mla.h"
#include "qkv/nn/moe.h"
#include "qkv/nn/norm.h"
#include "qkv/nn/ssm.h"

namespace qkv {

struct BlockConfig {
  enum class Norms : uint8_t {
    before,    // x + f(norm(x)): GPT-2 and most since
    after,     // x + norm(f(x)): OLMo 2
    around,    // x + norm(f(norm(x))): Gemma 2
    residual,  // norm(x + f(x)): the original transformer, BERT, OPT 350M
  };
  Norms norms = Norms::before;
  NormConfig norm;
  // Attention and feed-forward network both read the block's input: x + attention(norm(x)) + mlp(norm(x)).
  bool parallel = false;
  bool shared_norm = false;  // parallel: one norm feeds both
  AttentionConfig attention;
  std::optional<MlaConfig> latent_attention;  // instead of attention
  // Instead of attention and network: the block is a norm and this mixer. attention.channels is given all the
  // same.
  std::optional<MambaConfig> mamba;
  std::optional<Mamba2Config> mamba2;
  MlpConfig mlp;
  std::optional<MoeConfig> experts;  // instead of the network
};

class DecoderBlock : public Module {
 public:
  explicit DecoderBlock(const BlockConfig& config);
  // x (T, C) -> (T, C). `layer`: this block's place in the model and in each sequence's state.
  Tensor forward(const Tensor& x, const Pass& pass, const ops::RopeTable* rope, size_t layer) const;
  bool has_experts() const { return has_experts_; }
  const Mixer& mixer() const { return *mixer_; }
  void visit(const std::string& prefix, const ParameterVisitor& visitor) override;
  void visit_linears(const std::string& prefix, const LinearVisitor& visitor) override;

 private:
  bool parallel_;
  bool residual_norms_;
  bool has_experts_;
  std::optional<Norm> attention_norm_, attention_post_norm_, mlp_norm_, mlp_post_norm_;
  std::unique_ptr<Mixer> mixer_;
  std::unique_ptr<FeedForward> feed_forward_;  // null: none
  const char* mixer_name_;
};

}  // namespace qkv
