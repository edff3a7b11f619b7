#include "qkv/tensor/convert.h"

#include <algorithm>
#include <type_traits>

#include "qkv/core/error.h"
#include "qkv/core/parallel.h"
#include "qkv/kernels/kernels.h"

namespace qkv {
namespace {

constexpr int64_t kGrain = 1 << 15;
constexpr int64_t kPiece = 2048;  // values on their way through float; a multiple of every block length

template <typename T>
const T* at(const std::byte* data, int64_t i) {
  return reinterpret_cast<const T*>(data) + i;
}
template <typename T>
T* at(std::byte* data, int64_t i) {
  return reinterpret_cast<T*>(data) + i;
}

uint64_t bytes_before(DType type, int64_t i) {
  return dtype_bytes(type, static_cast<uint64_t>(i));
}

template <typename T>
void widen_each(const T* in, int64_t n, float* out) {
  std::transform(in, in + n, out, [](T x) {
    if constexpr (std::is_integral_v<T>) {
      return static_cast<float>(x);
    } else {
      return to_float(x);
    }
  });
}

}  // namespace

void widen(const std::byte* data, DType type, int64_t first, int64_t n, float* out) {
  const Kernels& k = kernels();
  if (const auto block = block_type(type)) {
    require(n % traits(type).block_length == 0, "{}: expected whole blocks, found {} values", name(type), n);
    return k.blocks.dequantize[*block](data + bytes_before(type, first), out, n);
  }
  switch (type) {
    case DType::f32:
      std::copy_n(at<float>(data, first), n, out);
      return;
    case DType::bf16:
      return k.bf16_to_f32(at<bf16>(data, first), out, n);
    case DType::f16:
      return k.f16_to_f32(at<f16>(data, first), out, n);
    case DType::f64:
      std::transform(at<double>(data, first), at<double>(data, first + n), out,
                     [](double x) { return static_cast<float>(x); });
      return;
    case DType::f8_e4m3:
      return widen_each(at<f8_e4m3>(data, first), n, out);
    case DType::f8_e5m2:
      return widen_each(at<f8_e5m2>(data, first), n, out);
    case DType::i64:
      return widen_each(at<int64_t>(data, first), n, out);
    case DType::i32:
      return widen_each(at<int32_t>(data, first), n, out);
    case DType::i16:
      return widen_each(at<int16_t>(data, first), n, out);
    case DType::i8:
      return widen_each(at<int8_t>(data, first), n, out);
    case DType::u64:
      return widen_each(at<uint64_t>(data, first), n, out);
    case DType::u32:
      return widen_each(at<uint32_t>(data, first), n, out);
    case DType::u16:
      return widen_each(at<uint16_t>(data, first), n, out);
    case DType::u8:
    case DType::boolean:
      return widen_each(at<uint8_t>(data, first), n, out);
    default:
      fail("tensor: cannot convert {} to f32", name(type));
  }
}

void narrow(const float* in, DType type, int64_t first, int64_t n, std::byte* data) {
  const Kernels& k = kernels();
  if (const auto block = block_type(type)) {
    require(k.blocks.quantize[*block] != nullptr,
            "tensor: {} is not made by rounding alone: its scales need a search", name(type));
    require(n % traits(type).block_length == 0, "{}: expected whole blocks, found {} values", name(type), n);
    return k.blocks.quantize[*block](in, data + bytes_before(type, first), n);
  }
  switch (type) {
    case DType::f32:
      std::copy_n(in, n, at<float>(data, first));
      return;
    case DType::bf16:
      return k.f32_to_bf16(in, at<bf16>(data, first), n);
    case DType::f16:
      return k.f32_to_f16(in, at<f16>(data, first), n);
    case DType::f64:
      std::copy_n(in, n, at<double>(data, first));
      return;
    default:
      fail("tensor: cannot convert f32 to {}", name(type));
  }
}

void convert_elements(const std::byte* from, DType from_type, std::byte* to, DType to_type, int64_t n) {
  parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
    if (to_type == DType::f32) return widen(from, from_type, begin, end - begin, at<float>(to, begin));
    if (from_type == DType::f32) return narrow(at<float>(from, begin), to_type, begin, end - begin, to);
    float piece[kPiece];
    for (int64_t i = begin; i < end; i += kPiece) {
      const int64_t count = std::min(kPiece, end - i);
      widen(from, from_type, i, count, piece);
      narrow(piece, to_type, i, count, to);
    }
  });
}

}  // namespace qkv
