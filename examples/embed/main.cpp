// The smallest program on the installed library: one linear layer, forward and backward.
#include <cstdio>
#include <vector>

#include "qkv/core/error.h"
#include "qkv/kernels/kernels.h"
#include "qkv/tensor/autograd.h"
#include "qkv/tensor/ops.h"
#include "qkv/tensor/tensor.h"

int main() try {
  const qkv::Tensor x = qkv::Tensor::from<float>({1, 2, 3}, {1, 3});
  qkv::Tensor w = qkv::Tensor::from<float>({1, 0, 0, 1, 1, 1}, {2, 3});
  w.set_requires_grad(true);

  const qkv::Tensor y = qkv::ops::linear(x, w);
  qkv::backward(qkv::ops::sum(y));

  std::printf("kernels: %s\n", qkv::isa_name(qkv::active_isa()));
  std::printf("x w^T = (%g, %g)\n", y.to_floats()[0], y.to_floats()[1]);
  std::printf("d sum / d w[0] = (%g, %g, %g)\n", w.grad().to_floats()[0], w.grad().to_floats()[1], w.grad().to_floats()[2]);
  return 0;
} catch (const qkv::Error& error) {
  std::fprintf(stderr, "embed: %s\n", error.what());
  return 2;
}
