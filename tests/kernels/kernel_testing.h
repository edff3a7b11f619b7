// Shared by the kernel tests: exactly sized buffers, random data, tolerances, and a loop over the available sets.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>
#include <string>
#include <vector>

#include "qkv/core/rng.h"
#include "qkv/kernels/kernels.h"
#include "tests/support/reference_ops.h"

namespace qkv::test {

using Doubles = std::vector<double>;

// A copy of bytes that ends where a page begins that nobody may touch: in every build, reading past the end ends the test.
// A mapped file may end like that.
class GuardedBytes {
 public:
  explicit GuardedBytes(const std::vector<uint8_t>& bytes) : page_(static_cast<size_t>(::sysconf(_SC_PAGESIZE))) {
    accessible_ = (bytes.size() + page_ - 1) / page_ * page_;
    void* memory = ::mmap(nullptr, accessible_ + page_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    start_ = static_cast<uint8_t*>(memory);
    ::mprotect(start_ + accessible_, page_, PROT_NONE);
    data_ = start_ + accessible_ - bytes.size();
    std::copy(bytes.begin(), bytes.end(), data_);
  }
  ~GuardedBytes() { ::munmap(start_, accessible_ + page_); }
  GuardedBytes(const GuardedBytes&) = delete;
  GuardedBytes& operator=(const GuardedBytes&) = delete;
  const uint8_t* data() const { return data_; }

 private:
  size_t page_, accessible_ = 0;
  uint8_t* start_ = nullptr;
  uint8_t* data_ = nullptr;
};

// Sizes that reach every tail of every vector width, and some that fill all unrolled loops.
inline std::vector<int64_t> sizes() {
  std::vector<int64_t> list;
  for (int64_t n = 1; n <= 70; ++n) list.push_back(n);
  list.insert(list.end(), {127, 256, 1000, 4099});
  return list;
}

inline Doubles normal_values(int64_t n, uint64_t seed, double scale = 1) {
  Rng rng(seed, static_cast<uint64_t>(n));
  Doubles values(static_cast<size_t>(n));
  for (double& v : values) v = scale * static_cast<double>(static_cast<float>(rng.normal()));
  return values;
}

// In the storage type, with nothing behind the last element: a sanitizer sees every access past the end.
template <typename T>
std::vector<T> stored(const Doubles& values) {
  std::vector<T> result;
  result.reserve(values.size());
  for (double v : values) result.push_back(from_float<T>(static_cast<float>(v)));
  return result;
}

template <typename T>
Doubles widened(const std::vector<T>& values) {
  Doubles result;
  result.reserve(values.size());
  for (T v : values) result.push_back(static_cast<double>(to_float(v)));
  return result;
}

// Values as the storage type has them.
template <typename T>
Doubles rounded(const Doubles& values) {
  return widened(stored<T>(values));
}

// Half a unit in the last place of the storage type, relative.
template <typename T>
constexpr double kRounding = sizeof(T) == 4 ? 0x1p-24 : 0x1p-8;

// |actual - expected| <= relative * |expected| + absolute for every element; NaN never passes.
inline ::testing::AssertionResult near(const Doubles& actual, const Doubles& expected, double relative, double absolute) {
  if (actual.size() != expected.size()) {
    return ::testing::AssertionFailure() << actual.size() << " elements, expected " << expected.size();
  }
  for (size_t i = 0; i < actual.size(); ++i) {
    const double error = std::abs(actual[i] - expected[i]);
    if (!(error <= relative * std::abs(expected[i]) + absolute)) {
      return ::testing::AssertionFailure() << "element " << i << " of " << actual.size() << ": expected " << expected[i] << ", found "
                                           << actual[i] << ", error " << error;
    }
  }
  return ::testing::AssertionSuccess();
}

template <typename T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

constexpr Activation kActivations[] = {Activation::silu,       Activation::gelu_erf, Activation::gelu_tanh,
                                       Activation::quick_gelu, Activation::relu,     Activation::relu2,
                                       Activation::sigmoid};

// A test for every available set of kernels and both storage types.
template <typename T>
class TypedKernelTest : public ::testing::Test {
 protected:
  template <typename Body>
  void for_each_isa(Body&& body) {
    for (Isa isa : available_isas()) {
      SCOPED_TRACE(isa_name(isa));
      body(kernels_for(isa).typed<T>());
      if (this->HasFatalFailure()) return;
    }
  }
};
using StorageTypes = ::testing::Types<float, bf16>;

}  // namespace qkv::test
