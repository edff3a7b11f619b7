// What a pass computes for one token usually depends, in the last bits, on how many tokens it computes
// together: products take other kernels, which add in another order, for one row than for eight or for five
// hundred ("Defeating Nondeterminism in LLM Inference", He et al., 2025). While a BatchInvariant is alive,
// every row is computed as if it were alone, with the bits that it has alone. That costs speed wherever rows
// would share work; off the tape only.
#pragma once

namespace qkv {

bool batch_invariant();

// Rows are computed each by itself while alive; per thread, like NoGrad.
class BatchInvariant {
 public:
  explicit BatchInvariant(bool on = true);
  ~BatchInvariant();
  BatchInvariant(const BatchInvariant&) = delete;
  BatchInvariant& operator=(const BatchInvariant&) = delete;

 private:
  bool previous_;
};

}  // namespace qkv
