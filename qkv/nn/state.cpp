#include "qkv/nn/state.h"

#include <algorithm>
#include <cstring>

#include "qkv/core/error.h"

namespace qkv {
namespace {

constexpr int64_t kFirstCapacity = 64;

void grow(Tensor& buffer, int64_t length, int64_t capacity, int64_t width, DType type) {
  Tensor larger = Tensor::empty({capacity, width}, type);
  if (length > 0) std::memcpy(larger.raw(), buffer.raw(), dtype_bytes(type, static_cast<uint64_t>(length * width)));
  buffer = std::move(larger);
}

}  // namespace

void KvState::append(const Tensor& k, const Tensor& v) {
  const int64_t n = k.rows();
  require(k.cols() == k_width_ && v.cols() == v_width_ && v.rows() == n && (!k_.defined() || k_.dtype() == k.dtype()),
          "kv cache: expected rows of {} and {}, found {} and {}", k_width_, v_width_, describe(k), describe(v));
  const int64_t capacity = k_.defined() ? k_.dim(0) : 0;
  if (length_ + n > capacity) {
    const int64_t wanted = std::max({kFirstCapacity, length_ + n, 2 * capacity});
    grow(k_, length_, wanted, k_width_, k.dtype());
    grow(v_, length_, wanted, v_width_, v.dtype());
  }
  k_.row_view(length_, length_ + n).copy_from(k);
  v_.row_view(length_, length_ + n).copy_from(v);
  length_ += n;
}

uint64_t KvState::bytes() const { return k_.defined() ? k_.bytes() + v_.bytes() : 0; }

void KvState::truncate(int64_t length) {
  require(0 <= length && length <= length_, "kv cache: cannot shorten {} tokens to {}", length_, length);
  length_ = length;
}

uint64_t SequenceState::bytes() const {
  uint64_t total = 0;
  for (const auto& layer : layers) total += layer->bytes();
  return total;
}

void SequenceState::truncate(int64_t new_length) {
  for (auto& layer : layers) layer->truncate(new_length);
  length = new_length;
}

}  // namespace qkv
