// Normalization of activations: RMSNorm (Zhang & Sennrich, arXiv 1910.07467) and LayerNorm (Ba et al., arXiv
// 1607.06450), with or without gains and biases.
#pragma once

#include <vector>

#include "qkv/nn/module.h"
#include "qkv/tensor/ops.h"

namespace qkv {

struct NormConfig {
  enum class Kind : uint8_t { rms, layer };
  Kind kind = Kind::rms;
  float eps = 1e-5f;
  bool weight = true, bias = false;
  float gain_offset = 0;  // added to the stored weight: Gemma stores gain - 1
};

class Norm : public Module {
 public:
  // Over vectors of `channels`. With `heads` > 0 the rows of the input are heads in turn, each with a gain of
  // its own: parameters "0.weight", "1.weight", ... instead of "weight".
  Norm(const NormConfig& config, int64_t channels, int64_t heads = 0);
  Tensor forward(const Tensor& x) const;  // x (..., channels) -> the same shape
  void visit(const std::string& prefix, const ParameterVisitor& visitor) override;

 private:
  NormConfig config_;
  Tensor weight_, bias_;              // (channels) or undefined
  std::vector<Tensor> head_weights_;  // (channels) each
};

}  // namespace qkv
