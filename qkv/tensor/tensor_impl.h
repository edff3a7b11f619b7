// What a Tensor handle points to. Private to the tensor layer.
#pragma once

#include "qkv/tensor/autograd.h"
#include "qkv/tensor/tensor.h"

namespace qkv {

struct Tensor::Impl {
  std::shared_ptr<std::byte> storage;  // first byte of this tensor; aliases the owner of the whole block
  Shape shape;
  DType type = DType::f32;
  Device device;
  bool requires_grad = false;
  std::shared_ptr<Node> node;  // the op that made it, if recorded
  size_t output_index = 0;     // which of its outputs
  Tensor grad;
  Tensor compute_copy;
  std::shared_ptr<Recompute> recompute;
};

struct TensorAccess {
  using Impl = Tensor::Impl;  // private to Tensor, open to this layer
  static Tensor make(std::shared_ptr<Tensor::Impl> impl) { return Tensor(std::move(impl)); }
  static Tensor::Impl& impl(const Tensor& tensor) { return *tensor.impl_; }
  // Nobody else can see this data, so it may be written in place.
  static bool unique(const Tensor& tensor) { return tensor.impl_.use_count() == 1 && tensor.impl_->storage.use_count() == 1; }
};

}  // namespace qkv
