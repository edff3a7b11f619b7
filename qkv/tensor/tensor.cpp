#include "qkv/tensor/tensor.h"

#include <algorithm>
#include <cstring>

#include "qkv/core/error.h"
#include "qkv/core/parallel.h"
#include "qkv/tensor/convert.h"
#include "qkv/tensor/tensor_impl.h"

namespace qkv {
namespace {

constexpr int64_t kGrain = 1 << 15;

}  // namespace

void fail_float_type(DType type, const char* what) { fail("{}: expected f32 or bf16, found {}", what, name(type)); }

std::string describe(const Tensor& tensor) {
  return tensor.defined() ? fmt::format("{} {}", name(tensor.dtype()), tensor.shape().str()) : "nothing";
}

Tensor Tensor::empty(Shape shape, DType type, Device device) {
  auto impl = std::make_shared<Impl>();
  impl->storage = allocate(dtype_bytes(type, static_cast<uint64_t>(shape.elements())), device);
  impl->shape = shape;
  impl->type = type;
  impl->device = device;
  return Tensor(std::move(impl));
}

Tensor Tensor::zeros(Shape shape, DType type, Device device) {
  Tensor result = empty(shape, type, device);
  std::byte* data = result.raw();
  parallel_for(static_cast<int64_t>(result.bytes()), 1 << 18,
               [&](int64_t begin, int64_t end) { std::memset(data + begin, 0, static_cast<size_t>(end - begin)); });
  return result;
}

Tensor Tensor::full(Shape shape, float value, DType type) {
  Tensor result = empty(shape, type);
  result.fill(value);
  return result;
}

template <typename T>
Tensor Tensor::from(const std::vector<T>& values, Shape shape) {
  require(static_cast<int64_t>(values.size()) == shape.elements(), "tensor: shape {} has {} elements, found {} values",
          shape.str(), shape.elements(), values.size());
  Tensor result = empty(shape, DTypeOf<T>::value);
  std::copy(values.begin(), values.end(), result.data<T>());
  return result;
}
template Tensor Tensor::from(const std::vector<float>&, Shape);
template Tensor Tensor::from(const std::vector<double>&, Shape);
template Tensor Tensor::from(const std::vector<int32_t>&, Shape);
template Tensor Tensor::from(const std::vector<int64_t>&, Shape);
template Tensor Tensor::from(const std::vector<uint8_t>&, Shape);

Tensor Tensor::placeholder(Shape shape, DType type) {
  auto impl = std::make_shared<Impl>();
  impl->shape = shape;
  impl->type = type;
  return Tensor(std::move(impl));
}

bool Tensor::is_placeholder() const { return defined() && impl_->storage == nullptr && impl_->shape.elements() > 0; }

Tensor Tensor::borrowed(const std::byte* data, Shape shape, DType type, std::shared_ptr<const void> owner) {
  auto impl = std::make_shared<Impl>();
  impl->storage = std::shared_ptr<std::byte>(std::const_pointer_cast<void>(std::move(owner)), const_cast<std::byte*>(data));
  impl->shape = shape;
  impl->type = type;
  return Tensor(std::move(impl));
}

const Shape& Tensor::shape() const {
  require(defined(), "tensor: used before it was given a value");
  return impl_->shape;
}
DType Tensor::dtype() const { return impl_->type; }
Device Tensor::device() const { return impl_->device; }
std::byte* Tensor::raw() { return impl_->storage.get(); }
const std::byte* Tensor::raw() const { return impl_->storage.get(); }

template <typename T>
T* Tensor::data() {
  return const_cast<T*>(std::as_const(*this).data<T>());
}
// Here and in what else every op calls, a description is made only for an error: it takes a microsecond.
template <typename T>
const T* Tensor::data() const {
  if (!defined() || impl_->type != DTypeOf<T>::value)
    fail("tensor: expected {} data, found {}", name(DTypeOf<T>::value), describe(*this));
  if (is_placeholder()) fail("tensor: {} was used before it was loaded or initialized", describe(*this));
  return reinterpret_cast<const T*>(impl_->storage.get());
}
#define QKV_DATA(T)              \
  template T* Tensor::data<T>(); \
  template const T* Tensor::data<T>() const;
QKV_DATA(double)
QKV_DATA(float)
QKV_DATA(bf16)
QKV_DATA(f16)
QKV_DATA(int64_t)
QKV_DATA(int32_t)
QKV_DATA(int16_t)
QKV_DATA(int8_t)
QKV_DATA(uint32_t)
QKV_DATA(uint16_t)
QKV_DATA(uint8_t)
#undef QKV_DATA

float Tensor::item() const {
  require(elements() == 1, "tensor: expected one element, found {}", describe(*this));
  return to_floats()[0];
}

std::vector<float> Tensor::to_floats() const {
  std::vector<float> values(static_cast<size_t>(elements()));
  if (dtype() == DType::f32) {
    std::copy_n(data<float>(), elements(), values.begin());
  } else {
    convert_elements(raw(), dtype(), reinterpret_cast<std::byte*>(values.data()), DType::f32, elements());
  }
  return values;
}

Tensor Tensor::view(Shape shape) const {
  if (shape.elements() != elements()) fail("tensor: cannot view {} as {}", describe(*this), shape.str());
  auto impl = std::make_shared<Impl>();
  impl->storage = impl_->storage;
  impl->shape = shape;
  impl->type = impl_->type;
  impl->device = impl_->device;
  return Tensor(std::move(impl));
}

Tensor Tensor::row_view(int64_t begin, int64_t end) const {
  if (shape().rank() < 1 || begin < 0 || begin > end || end > dim(0))
    fail("tensor: rows {}..{} are not in {}", begin, end, describe(*this));
  std::vector<int64_t> dims = shape().dims();
  const int64_t row = dim(0) == 0 ? 0 : elements() / dim(0);
  dims[0] = end - begin;
  Tensor result = view(shape());
  result.impl_->shape = Shape(dims);
  result.impl_->storage = std::shared_ptr<std::byte>(
      impl_->storage, impl_->storage.get() + dtype_bytes(dtype(), static_cast<uint64_t>(begin * row)));
  return result;
}

Tensor Tensor::clone() const {
  Tensor result = empty(shape(), dtype(), device());
  result.copy_from(*this);
  return result;
}

Tensor Tensor::detach() const { return view(shape()); }

Tensor Tensor::to(DType type) const {
  if (type == dtype()) return *this;
  Tensor result = empty(shape(), type, device());
  convert_elements(raw(), dtype(), result.raw(), type, elements());
  return result;
}

void Tensor::fill(float value) {
  with_float_type(dtype(), "fill", [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    T* out = data<T>();
    parallel_for(elements(), kGrain,
                 [&](int64_t begin, int64_t end) { std::fill(out + begin, out + end, from_float<T>(value)); });
  });
}

void Tensor::copy_from(const Tensor& other) {
  if (other.shape() != shape() || other.dtype() != dtype())
    fail("tensor: cannot copy {} into {}", describe(other), describe(*this));
  std::byte* to = raw();
  const std::byte* from = other.raw();
  parallel_for(static_cast<int64_t>(bytes()), 1 << 18, [&](int64_t begin, int64_t end) {
    std::memcpy(to + begin, from + begin, static_cast<size_t>(end - begin));
  });
}

bool Tensor::requires_grad() const { return impl_->requires_grad; }
Tensor& Tensor::set_requires_grad(bool value) {
  impl_->requires_grad = value;
  return *this;
}
bool Tensor::tracks_gradient() const { return defined() && (impl_->requires_grad || impl_->node != nullptr); }
Tensor Tensor::grad() const { return impl_->grad; }
void Tensor::set_grad(Tensor grad) { impl_->grad = std::move(grad); }
void Tensor::clear_grad() { impl_->grad = Tensor(); }
const std::shared_ptr<Node>& Tensor::node() const { return impl_->node; }

Tensor Tensor::compute_copy(DType type) const {
  if (type == dtype()) return detach();
  if (!impl_->compute_copy.defined() || impl_->compute_copy.dtype() != type) impl_->compute_copy = detach().to(type);
  return impl_->compute_copy;
}
void Tensor::mark_modified() { impl_->compute_copy = Tensor(); }

bool Tensor::same_storage(const Tensor& other) const { return raw() == other.raw(); }

}  // namespace qkv
