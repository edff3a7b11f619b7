// The part of a block that treats every token by itself: the plain and the gated feed-forward network, and
// the interface that a mixture of experts (nn/moe.h) shares with them.
#pragma once

#include <optional>

#include "qkv/nn/layers.h"
#include "qkv/nn/pass.h"

namespace qkv {

class FeedForward : public Module {
 public:
  virtual Tensor forward(const Tensor& x, const Pass& pass) const = 0;  // (T, C) -> (T, C)
};

struct MlpConfig {
  int64_t channels = 0, hidden = 0;
  Activation activation = Activation::silu;
  bool gated = true;
  bool bias = false;
};

// down(f(gate(x)) * up(x)), SwiGLU when f is SiLU (Shazeer, arXiv 2002.05202); or, not gated, down(f(up(x))).
class Mlp : public FeedForward {
 public:
  explicit Mlp(const MlpConfig& config);
  Tensor forward(const Tensor& x, const Pass& pass) const override;
  void visit(const std::string& prefix, const ParameterVisitor& visitor) override;
  void visit_linears(const std::string& prefix, const LinearVisitor& visitor) override;

 private:
  Activation activation_;
  std::optional<Linear> gate_;
  Linear up_, down_;
};

}  // namespace qkv
