#include "qkv/nn/state.h"

#include <algorithm>
#include <cstring>

#include "qkv/core/error.h"

namespace qkv {
namespace {

constexpr int64_t kFirstCapacity = 64;

// Rows [begin, begin + count) of a buffer of `capacity` rows go to the front of `to`, which may be the same
// buffer.
void move_rows(const Tensor& from, int64_t begin, int64_t count, Tensor& to) {
  if (count == 0) return;
  const auto row = static_cast<size_t>(dtype_bytes(from.dtype(), static_cast<uint64_t>(from.cols())));
  std::memmove(to.raw(), from.raw() + static_cast<size_t>(begin) * row, static_cast<size_t>(count) * row);
}

}  // namespace

void KvState::reallocate(int64_t capacity, DType type) {
  for (auto [buffer, width] : {std::pair{&k_, k_width_}, std::pair{&v_, v_width_}}) {
    if (width == 0) continue;
    Tensor other = Tensor::empty({capacity, width}, type);
    if (buffer->defined()) move_rows(*buffer, begin_, held(), other);
    *buffer = std::move(other);
  }
  begin_ = 0;
}

void KvState::append(const Tensor& k, const Tensor& v) {
  const int64_t n = k.rows();
  const int64_t v_width = v.defined() ? v.cols() : 0;
  require(k.cols() == k_width_ && v_width == v_width_ &&
              (!v.defined() || (v.rows() == n && v.dtype() == k.dtype())) &&
              (!k_.defined() || k_.dtype() == k.dtype()),
          "kv cache: expected rows of {} and {}, found {} and {}", k_width_, v_width_, describe(k),
          v.defined() ? describe(v) : "none");
  const int64_t capacity = k_.defined() ? k_.dim(0) : 0;
  if (begin_ + held() + n > capacity) {
    if (window_ > 0) {  // the first of the new tokens sees window - 1 older ones
      const int64_t dropped = std::max<int64_t>(0, held() - (window_ - 1));
      first_ += dropped;
      begin_ += dropped;
    }
    if (held() + n > capacity || capacity < 2 * window_) {
      const int64_t doubled = window_ > 0 ? std::min(2 * capacity, 2 * window_) : 2 * capacity;
      reallocate(std::max({kFirstCapacity, held() + n, doubled}), k.dtype());
    } else {
      move_rows(k_, begin_, held(), k_);
      if (v_.defined()) move_rows(v_, begin_, held(), v_);
      begin_ = 0;
    }
  }
  const int64_t row = begin_ + held();
  k_.row_view(row, row + n).copy_from(k);
  if (v.defined()) v_.row_view(row, row + n).copy_from(v);
  length_ += n;
}

void KvState::trim() {
  if (window_ == 0 || k_.dim(0) <= std::max(kFirstCapacity, 2 * window_)) return;
  const int64_t dropped = std::max<int64_t>(0, held() - (window_ - 1));
  first_ += dropped;
  begin_ += dropped;
  reallocate(std::max(kFirstCapacity, 2 * window_), k_.dtype());
}

uint64_t KvState::bytes() const {
  return (k_.defined() ? k_.bytes() : 0) + (v_.defined() ? v_.bytes() : 0);
}

void KvState::truncate(int64_t length) {
  require(0 <= length && length <= length_, "kv cache: cannot shorten {} tokens to {}", length_, length);
  const int64_t needed = window_ > 0 ? std::max<int64_t>(0, length - (window_ - 1)) : 0;
  require(first_ <= needed,
          "kv cache: cannot shorten to {} tokens: a window of {} keeps only those from {} on", length,
          window_, first_);
  length_ = length;
}

uint64_t SequenceState::bytes() const {
  uint64_t total = 0;
  for (const auto& layer : layers) total += layer->bytes();
  return total;
}

bool SequenceState::can_truncate() const {
  return std::all_of(layers.begin(), layers.end(), [](const auto& layer) { return layer->can_truncate(); });
}

void SequenceState::truncate(int64_t new_length) {
  for (auto& layer : layers) layer->truncate(new_length);
  length = new_length;
}

}  // namespace qkv
