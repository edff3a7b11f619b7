// Up to four dimensions, row-major, contiguous.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

namespace qkv {

class Shape {
 public:
  static constexpr int kMaximumRank = 4;
  Shape() = default;
  // Throws Error for negative dimensions, more than four of them, or more than 2^62 elements.
  Shape(std::initializer_list<int64_t> dims);
  explicit Shape(const std::vector<int64_t>& dims);

  int rank() const { return rank_; }
  // Negative indices count from the end.
  int64_t operator[](int i) const { return dims_[static_cast<size_t>(i < 0 ? i + rank_ : i)]; }
  int64_t elements() const;
  // Product of all dimensions but the last; 1 for a scalar.
  int64_t rows() const;
  // The last dimension; 1 for a scalar.
  int64_t cols() const { return rank_ == 0 ? 1 : dims_[static_cast<size_t>(rank_ - 1)]; }
  std::vector<int64_t> dims() const { return {dims_.begin(), dims_.begin() + rank_}; }
  // "(2, 3)".
  std::string str() const;
  bool operator==(const Shape& other) const;

 private:
  void assign(const int64_t* dims, size_t count);
  std::array<int64_t, kMaximumRank> dims_{};
  int rank_ = 0;
};

}  // namespace qkv
