#include "qkv/tensor/shape.h"

#include <algorithm>

#include "qkv/core/error.h"

namespace qkv {

Shape::Shape(std::initializer_list<int64_t> dims) { assign(dims.begin(), dims.size()); }
Shape::Shape(const std::vector<int64_t>& dims) { assign(dims.data(), dims.size()); }

void Shape::assign(const int64_t* dims, size_t count) {
  require(count <= kMaximumRank, "shape: expected at most {} dimensions, found {}", int{kMaximumRank}, count);
  int64_t elements = 1;
  for (size_t i = 0; i < count; ++i) {
    require(dims[i] >= 0, "shape: dimension {}: expected 0 or more, found {}", i, dims[i]);
    int64_t product = 0;
    require(!__builtin_mul_overflow(elements, std::max<int64_t>(dims[i], 1), &product) && product < (int64_t{1} << 62),
            "shape: more than 2^62 elements");
    elements = product;
    dims_[i] = dims[i];
  }
  rank_ = static_cast<int>(count);
}

int64_t Shape::elements() const {
  int64_t product = 1;
  for (int i = 0; i < rank_; ++i) product *= dims_[static_cast<size_t>(i)];
  return product;
}

int64_t Shape::rows() const {
  int64_t product = 1;
  for (int i = 0; i + 1 < rank_; ++i) product *= dims_[static_cast<size_t>(i)];
  return product;
}

std::string Shape::str() const {
  std::string text = "(";
  for (int i = 0; i < rank_; ++i) text += (i ? ", " : "") + std::to_string(dims_[static_cast<size_t>(i)]);
  return text + ")";
}

bool Shape::operator==(const Shape& other) const {
  return rank_ == other.rank_ && std::equal(dims_.begin(), dims_.begin() + rank_, other.dims_.begin());
}

}  // namespace qkv
