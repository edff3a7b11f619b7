// A mixture of experts (Shazeer et al., arXiv 1701.06538): a router sends every token to a few of many
// feed-forward networks. Routers of Mixtral (Jiang et al., arXiv 2401.04088), Qwen, OLMoE (arXiv 2409.02060),
// DeepSeek V2 and V3 (arXiv 2405.04434, 2412.19437) and Phi-3.5-MoE (sparse mixer: Liu et al., arXiv
// 2409.12136).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "qkv/nn/feed_forward.h"

namespace qkv {

struct RouterConfig {
  enum class Score : uint8_t {
    softmax,
    sigmoid,
    sparse_mixer,  // one after the other, each weighted by a softmax over those close to the best left
  };
  int experts = 0, top_k = 0;
  Score score = Score::softmax;
  bool normalize = false;  // the chosen weights are divided by their sum
  float scale = 1;         // and multiplied by this
  // Experts lie in `groups` groups, of which the best `top_groups` are considered: by their best expert, or
  // by the sum of their best two. 0: no groups.
  int groups = 0, top_groups = 0;
  bool groups_by_top_two = false;
  bool correction = false;  // a learned bias is added to scores for choosing, not for weighing
  float jitter = 0.01f;     // sparse mixer: experts within twice this of the best are close
};

struct Routing {
  std::vector<int32_t> experts;  // (T, k)
  Tensor weights;                // (T, k) f32, on the tape
};
// logits (T, experts) f32; correction (experts) f32 or undefined.
Routing route(const RouterConfig& config, const Tensor& logits, const Tensor& correction);

// How unevenly tokens are spread over experts (Switch Transformer: Fedus et al., arXiv 2101.03961): experts x
// sum over experts of the share of choices times the mean probability, over all layers' logits at once; top_k
// when even. Differentiable through the probabilities. One element.
Tensor load_balancing_loss(const std::vector<Tensor>& router_logits, int top_k);

struct MoeConfig {
  RouterConfig router;
  MlpConfig expert;
  int64_t shared_hidden = 0;  // > 0: a network of this size that every token passes as well
  bool shared_gate = false;   // its output is multiplied by a sigmoid of the token's own gate
};

class MixtureOfExperts : public FeedForward {
 public:
  explicit MixtureOfExperts(const MoeConfig& config);
  // Tokens are grouped by expert: each expert sees its tokens in one product.
  Tensor forward(const Tensor& x, const Pass& pass) const override;
  void visit(const std::string& prefix, const ParameterVisitor& visitor) override;
  void visit_linears(const std::string& prefix, const LinearVisitor& visitor) override;

 private:
  Tensor run_experts(const Tensor& x, const Routing& routing, const Pass& pass) const;
  RouterConfig config_;
  Linear router_;      // (experts, C)
  Tensor correction_;  // (experts) or undefined
  std::vector<std::unique_ptr<Mlp>> experts_;
  std::optional<Mlp> shared_;
  std::optional<Linear> shared_gate_;  // (1, C)
};

}  // namespace qkv
