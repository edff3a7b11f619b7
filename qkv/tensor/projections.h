// Products of one input with several weights, for inference: the input is prepared once and every weight is
// read once, in the type it is stored in.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "qkv/tensor/tensor.h"

namespace qkv {

// How a product with a weight of blocks sees its activations.
enum class Activations : uint8_t {
  exact,  // as they are; the weight is widened on its way into the product
  int8,   // rounded to bytes in groups of 32 (Int8Rows in kernels/blocks.h), where integer products of that
          // type are faster
};

namespace ops {

struct Projection {
  const Tensor* weight;  // (N, K), any floating or block type
  const Tensor* bias;    // (N) f32; undefined: none
};
// y_i (T, N_i) = x (T, K) w_i^T + bias_i in x's type, off the tape. With exact activations the same bits as
// linear().
std::vector<Tensor> project(const Tensor& x, std::span<const Projection> projections,
                            Activations activations);

}  // namespace ops
}  // namespace qkv
