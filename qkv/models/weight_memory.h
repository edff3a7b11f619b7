// Memory for the matrices of a model that answers. Decoding reads every matrix once per token, and a mapped
// file lies in pages of 4 KiB, whose addresses take the processor longer to look up than their bytes to
// fetch; in one block on huge pages the same products run up to half as fast again.
#pragma once

#include <cstdint>
#include <memory>

#include "qkv/tensor/tensor.h"

namespace qkv {

class WeightMemory {
 public:
  // Room for `count` matrices of `bytes` altogether, or none where that is more than the machine has to
  // spare.
  WeightMemory(uint64_t bytes, uint64_t count);
  // A copy in this memory, which it keeps alive; `values` themselves where there is no room.
  Tensor take(const Tensor& values);

 private:
  Tensor block_;
  uint64_t used_ = 0;
};

// What can be taken without swapping: of the machine, and of the control group that this process is in.
uint64_t available_memory_bytes();

}  // namespace qkv
