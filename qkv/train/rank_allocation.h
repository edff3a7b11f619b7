// AdaLoRA's allocation of ranks (Zhang et al., arXiv 2303.10512): of all triplets of a gate e, a row of A and
// a column of B, those that matter least have their gate set to zero after each step, down to a budget that
// falls as a cube from all of them to the target.
//
//   importance of a number w   s(w) = I U, with I and U running means (0.85) of |w dw| and of |that - I|
//   of a triplet               s(e) + mean of s over the row of A + mean of s over the column of B
//
// A's rows and B's columns are drawn towards being orthonormal by gamma (|A A^T - I|^2 + |B^T B - I|^2),
// gamma 0.1 over the number of matrices.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "qkv/models/adapter.h"

namespace qkv {

class RankAllocator : public Module {
 public:
  // `adapter` has gates; `target_rank`: of a module, on average, in the end. Warm-up takes a tenth of the
  // steps, and the last three tenths keep what is left.
  RankAllocator(Adapter& adapter, int64_t target_rank, int64_t steps);

  // With all gradients of a step in place: notes importances and adds the regularization's gradients.
  void before_update();
  // After step `step` (from 1): takes ranks away.
  void after_update(int64_t step);
  int64_t budget(int64_t step) const;
  // The running means, for checkpoints.
  void visit(const std::string& prefix, const ParameterVisitor& visitor) override;

 private:
  struct Importance {
    Tensor mean, uncertainty;
    void note(const Tensor& values);
    double of(int64_t i) const;
  };
  struct ModuleState {
    const AdapterModule* module;
    Importance gates, a;
    std::vector<Importance> b;
  };
  double importance_of(const ModuleState& state, int64_t rank) const;

  std::vector<ModuleState> modules_;
  int64_t all_ = 0, target_ = 0, steps_ = 0;
};

}  // namespace qkv
