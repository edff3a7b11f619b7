// The layer every architecture is made of, and the names of activation functions.
#pragma once

#include <initializer_list>
#include <memory>
#include <vector>

#include "qkv/nn/pass.h"
#include "qkv/nn/weight.h"
#include "qkv/tensor/ops.h"

namespace qkv {

// y (T, N) = x (T, K) W^T + b.
class Linear : public Module {
 public:
  Linear(int64_t inputs, int64_t outputs, bool bias);
  Tensor forward(const Tensor& x) const { return weight_->apply(x, bias_); }
  // With the pass's treatment of activations.
  Tensor forward(const Tensor& x, const Pass& pass) const;
  void visit(const std::string& prefix, const ParameterVisitor& visitor) override;
  // Itself; `prefix` ends with a dot, which its name does not.
  void visit_linears(const std::string& prefix, const LinearVisitor& visitor) override;
  Weight& weight() { return *weight_; }
  const Weight& weight() const { return *weight_; }
  // Puts another kind of weight of the same shape in place (quantized, adapted).
  void set_weight(std::unique_ptr<Weight> weight);
  // The same, giving back the one that was there.
  std::unique_ptr<Weight> exchange_weight(std::unique_ptr<Weight> weight);

 private:
  std::unique_ptr<Weight> weight_;
  Tensor bias_;  // (N) or undefined

  friend std::vector<Tensor> forward_together(const Tensor& x, std::initializer_list<const Linear*> layers, const Pass& pass);
};

// The outputs of several layers of one input. Off the tape the input is prepared once for all of them.
std::vector<Tensor> forward_together(const Tensor& x, std::initializer_list<const Linear*> layers, const Pass& pass);

// Hugging Face's names: "silu"/"swish", "gelu", "gelu_new"/"gelu_pytorch_tanh", "quick_gelu", "relu", "relu2". Error otherwise.
Activation activation_from_name(const std::string& name);
std::string activation_name(Activation activation);

}  // namespace qkv
