// GaLore (Zhao et al., arXiv 2403.03507): AdamW on matrices' gradients projected to a few dimensions, so that
// its moments are small though all parameters are trained. For G (N, K) with N <= K and P (N, r) the leading
// left singular vectors of a gradient, found again every `rank_interval` steps:
//   R = P^T G,  W -= lr (scale P adamw(R) + wd W)
// and the same from the right where N > K. Embeddings, the head and vectors are AdamW's.
#include <algorithm>
#include <cmath>

#include "qkv/kernels/kernels.h"
#include "qkv/quant/low_rank.h"
#include "qkv/tensor/ops.h"
#include "qkv/train/optimizers/optimizers.h"

namespace qkv::optimizers {
namespace {

class GaLore : public Optimizer {
 public:
  GaLore(Module& module, const OptimizerConfig& config) : Optimizer(module, config) {}

 protected:
  std::vector<StateShape> state_shapes(const Slot& slot) const override {
    const Shape& shape = slot.parameter.shape();
    if (!projected(slot)) return {{"m", shape}, {"v", shape}};
    const int64_t n = shape[0], k = shape[1], r = config_.rank;
    const Shape moments = n <= k ? Shape{r, k} : Shape{n, r};
    return {{"m", moments}, {"v", moments}, {"projection", Shape{std::min(n, k), r}}};
  }

  void update(Slot& slot, const float* gradient, float lr, float grad_scale) override {
    if (!projected(slot)) return adamw_update(slot, gradient, lr, grad_scale);
    const NoGrad off;
    const Tensor g = slot.parameter.grad();
    const bool left = g.rows() <= g.cols();
    if ((steps() - 1) % config_.rank_interval == 0) {
      const LowRank found = leading_singular_vectors(g, config_.rank, static_cast<uint64_t>(steps()), 2);
      if (left) {
        slot.state[2].copy_from(found.left);
      } else {
        for (int64_t i = 0; i < config_.rank; ++i) {
          for (int64_t c = 0; c < g.cols(); ++c)
            slot.state[2].data<float>()[c * config_.rank + i] = found.right.data<float>()[i * g.cols() + c];
        }
      }
    }
    const Tensor& p = slot.state[2];
    const Tensor low = left ? ops::matmul(p, g, true, false) : ops::matmul(g, p);
    // AdamW from zero at rate 1 is minus the normalized moments.
    Tensor direction = Tensor::zeros(low.shape());
    AdamWStep step = adamw_step(slot, 1, grad_scale);
    step.weight_decay = 0;
    float *m = slot.state[0].data<float>(), *v = slot.state[1].data<float>();
    parallel_for(low.elements(), 1 << 14, [&](int64_t begin, int64_t end) {
      kernels().adamw(step, direction.data<float>() + begin, low.data<float>() + begin, m + begin, v + begin,
                      end - begin);
    });
    const Tensor whole = left ? ops::matmul(p, direction) : ops::matmul(direction, p, false, true);
    const float kept = 1 - lr * decay_of(slot), rate = lr * static_cast<float>(config_.rank_scale);
    float* values = slot.parameter.data<float>();
    for_elements(slot.parameter.elements(),
                 [&](int64_t i) { values[i] = kept * values[i] + rate * whole.data<float>()[i]; });
  }

 private:
  // The matrices of layers of which the projection makes something smaller.
  bool projected(const Slot& slot) const {
    const Shape& shape = slot.parameter.shape();
    return shape.rank() == 2 && std::min(shape[0], shape[1]) > config_.rank &&
           slot.name.find("embed") == std::string::npos && slot.name.find("head") == std::string::npos &&
           slot.name.find("position") == std::string::npos;
  }
};

}  // namespace

std::unique_ptr<Optimizer> make_galore(Module& module, const OptimizerConfig& config) {
  return std::make_unique<GaLore>(module, config);
}

}  // namespace qkv::optimizers
