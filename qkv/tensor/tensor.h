// A contiguous, row-major array and, while gradients are recorded, its place on the autograd tape.
//
// Tensor is a handle: copies share the data. Views (reshape, rows) share storage with their parent.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "qkv/tensor/allocator.h"
#include "qkv/tensor/dtype.h"
#include "qkv/tensor/shape.h"

namespace qkv {

struct Node;      // autograd.h
class Recompute;  // autograd.h

class Tensor {
 public:
  // Undefined: tests false, has no data.
  Tensor() = default;

  static Tensor empty(Shape shape, DType type = DType::f32, Device device = {});
  static Tensor zeros(Shape shape, DType type = DType::f32, Device device = {});
  static Tensor full(Shape shape, float value, DType type = DType::f32);
  template <typename T>
  static Tensor from(const std::vector<T>& values, Shape shape);
  // A shape without memory, to be replaced by the loaded or initialized tensor. data() throws Error until then.
  static Tensor placeholder(Shape shape, DType type = DType::f32);
  // A tensor over memory owned elsewhere (a mapped file); `owner` keeps it alive. The data must not be written.
  static Tensor borrowed(const std::byte* data, Shape shape, DType type, std::shared_ptr<const void> owner);

  bool defined() const { return impl_ != nullptr; }
  explicit operator bool() const { return defined(); }
  bool is_placeholder() const;

  const Shape& shape() const;
  int64_t dim(int i) const { return shape()[i]; }
  int64_t elements() const { return shape().elements(); }
  int64_t rows() const { return shape().rows(); }
  int64_t cols() const { return shape().cols(); }
  DType dtype() const;
  Device device() const;
  uint64_t bytes() const { return dtype_bytes(dtype(), static_cast<uint64_t>(elements())); }

  // Typed access; throws Error when T is not the dtype.
  template <typename T>
  T* data();
  template <typename T>
  const T* data() const;
  template <typename T>
  std::span<const T> span() const {
    return {data<T>(), static_cast<size_t>(elements())};
  }
  std::byte* raw();
  const std::byte* raw() const;
  // The only element, as float. Throws Error unless there is exactly one.
  float item() const;
  // All elements as floats.
  std::vector<float> to_floats() const;

  // Same data, other dimensions; not recorded on the tape (ops::reshape is).
  Tensor view(Shape shape) const;
  // Rows [begin, end) of the first dimension, sharing storage; not recorded.
  Tensor row_view(int64_t begin, int64_t end) const;
  // A copy of the data, off the tape.
  Tensor clone() const;
  // Same data, off the tape.
  Tensor detach() const;
  // A copy in another floating or block dtype, off the tape; itself if it has it already. Block dtypes are dequantized, and
  // quantized where rounding to nearest is all there is to it (convert.h).
  Tensor to(DType type) const;
  void fill(float value);
  void copy_from(const Tensor& other);

  // Autograd. A leaf with requires_grad collects its gradient in grad() during backward().
  bool requires_grad() const;
  Tensor& set_requires_grad(bool value);
  // On the tape: a leaf that requires a gradient, or the output of a recorded op.
  bool tracks_gradient() const;
  Tensor grad() const;
  void set_grad(Tensor grad);
  // Drops the gradient's memory.
  void clear_grad();
  const std::shared_ptr<Node>& node() const;

  // The data in `type`, cached until mark_modified(): the low-precision copy of a master weight.
  Tensor compute_copy(DType type) const;
  // Tells that the data was written in place (by an optimizer), so that compute copies are stale.
  void mark_modified();

  bool same_storage(const Tensor& other) const;
  bool is_same(const Tensor& other) const { return impl_ == other.impl_; }
  // Identity for maps.
  const void* id() const { return impl_.get(); }

 private:
  struct Impl;
  friend struct TensorAccess;
  explicit Tensor(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<Impl> impl_;
};

// "f32 (2, 3)".
std::string describe(const Tensor& tensor);

// Calls body with a null pointer of the storage type (float* or bf16*) that `type` names; Error `<what>: ...` otherwise.
template <typename Body>
decltype(auto) with_float_type(DType type, const char* what, Body&& body);

[[noreturn]] void fail_float_type(DType type, const char* what);

template <typename Body>
decltype(auto) with_float_type(DType type, const char* what, Body&& body) {
  if (type == DType::f32) return body(static_cast<float*>(nullptr));
  if (type == DType::bf16) return body(static_cast<bf16*>(nullptr));
  fail_float_type(type, what);
}

}  // namespace qkv
