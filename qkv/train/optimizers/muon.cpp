// Muon (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; scaled as in Liu et
// al., arXiv 2502.16982): for the matrices of hidden layers, the momentum's singular values are all made
// about 1 by five steps of a Newton-Schulz iteration, X <- a X + (b X X^T + c (X X^T)^2) X, and times 0.2
// sqrt(the longer side) the update has the size of AdamW's, so that both share a learning rate. Embeddings,
// the head and vectors are AdamW's.
#include <algorithm>
#include <cmath>

#include "qkv/kernels/kernels.h"
#include "qkv/tensor/ops.h"
#include "qkv/train/optimizers/optimizers.h"

namespace qkv::optimizers {
namespace {

constexpr float kA = 3.4445f, kB = -4.7750f, kC = 2.0315f;  // steep at zero: chosen by the authors
constexpr int kSteps = 5;

// x (R, C), overwritten by a multiple of the nearest semi-orthogonal matrix.
void orthogonalize(Tensor& x) {
  const NoGrad off;
  const bool tall = x.rows() > x.cols();  // the product is made on the shorter side
  const double norm = std::sqrt(kernels().sum_of_squares(x.data<float>(), x.elements()));
  x = ops::scale(x, static_cast<float>(1 / (norm + 1e-7)));
  for (int step = 0; step < kSteps; ++step) {
    const Tensor gram = ops::matmul(x, x, tall, !tall);
    const Tensor poly = ops::add(ops::scale(gram, kB), ops::scale(ops::matmul(gram, gram), kC));
    x = ops::add(ops::scale(x, kA), tall ? ops::matmul(x, poly) : ops::matmul(poly, x));
  }
}

class Muon : public Optimizer {
 public:
  Muon(Module& module, const OptimizerConfig& config) : Optimizer(module, config) {}

 protected:
  static bool is_hidden_matrix(const Slot& slot) {
    const std::string& name = slot.name;
    const bool outer = name == "embed.weight" || name == "position.weight" || name == "token_type.weight" ||
                       name == "head.weight";
    return slot.parameter.shape().rank() == 2 && !outer;
  }
  std::vector<StateShape> state_shapes(const Slot& slot) const override {
    if (is_hidden_matrix(slot)) return {{"momentum", slot.parameter.shape()}};
    return {{"m", slot.parameter.shape()}, {"v", slot.parameter.shape()}};
  }
  void update(Slot& slot, const float* gradient, float lr, float grad_scale) override {
    if (!is_hidden_matrix(slot)) return adamw_update(slot, gradient, lr, grad_scale);
    float *p = slot.parameter.data<float>(), *m = slot.state[0].data<float>();
    const float momentum = static_cast<float>(config_.momentum);
    Tensor update = Tensor::empty(slot.parameter.shape());
    float* u = update.data<float>();
    for_elements(update.elements(), [&](int64_t i) {
      const float g = gradient[i] * grad_scale;
      m[i] = momentum * m[i] + g;
      u[i] = g + momentum * m[i];
    });
    orthogonalize(update);
    const float size = 0.2f * std::sqrt(static_cast<float>(std::max(update.rows(), update.cols()))),
                decay = decay_of(slot);
    const float* o = update.data<float>();
    for_elements(update.elements(), [&](int64_t i) { p[i] -= lr * (size * o[i] + decay * p[i]); });
  }
};

}  // namespace

std::unique_ptr<Optimizer> make_muon(Module& module, const OptimizerConfig& config) {
  return std::make_unique<Muon>(module, config);
}

}  // namespace qkv::optimizers
