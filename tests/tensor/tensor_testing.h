// Shared by the tensor tests: tensors from random doubles, comparison, and the check of an op against a reference: its
// forward, and the gradient of every input against central differences of the reference in double precision.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "qkv/core/error.h"
#include "qkv/core/rng.h"
#include "qkv/tensor/autograd.h"
#include "qkv/tensor/ops.h"
#include "tests/support/reference_ops.h"

namespace qkv::test {

using Doubles = std::vector<double>;

inline Doubles normal_values(int64_t n, uint64_t seed, double scale = 1) {
  Rng rng(seed, static_cast<uint64_t>(n));
  Doubles values(static_cast<size_t>(n));
  for (double& v : values) v = scale * static_cast<double>(static_cast<float>(rng.normal()));
  return values;
}

inline Tensor tensor_of(const Doubles& values, Shape shape, DType type = DType::f32) {
  return Tensor::from(std::vector<float>(values.begin(), values.end()), shape).to(type);
}

inline Tensor random_tensor(Shape shape, uint64_t seed, DType type = DType::f32, double scale = 1) {
  return tensor_of(normal_values(shape.elements(), seed, scale), shape, type);
}

inline Tensor random_leaf(Shape shape, uint64_t seed, DType type = DType::f32, double scale = 1) {
  return random_tensor(shape, seed, type, scale).set_requires_grad(true);
}

inline Doubles values_of(const Tensor& t) {
  const std::vector<float> floats = t.to_floats();
  return {floats.begin(), floats.end()};
}

inline bool same_bits(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && a.dtype() == b.dtype() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

// The largest error is at most `tolerance` times the largest expected magnitude; NaN never passes.
inline ::testing::AssertionResult close(const Doubles& actual, const Doubles& expected, double tolerance) {
  if (actual.size() != expected.size()) {
    return ::testing::AssertionFailure() << actual.size() << " elements, expected " << expected.size();
  }
  double largest = 0.1;
  for (double v : expected) largest = std::max(largest, std::abs(v));
  for (size_t i = 0; i < actual.size(); ++i) {
    const double error = std::abs(actual[i] - expected[i]) / largest;
    if (!(error <= tolerance)) {
      return ::testing::AssertionFailure() << "element " << i << " of " << actual.size() << ": expected " << expected[i] << ", found "
                                           << actual[i] << ", relative error " << error;
    }
  }
  return ::testing::AssertionSuccess();
}
inline ::testing::AssertionResult close(const Tensor& actual, const Doubles& expected, double tolerance) {
  return close(values_of(actual), expected, tolerance);
}

struct OpInput {
  Shape shape;
  bool activation = true;  // exists in bf16, too; else an f32 parameter
  double scale = 1;
};

struct OpCase {
  std::string name;
  std::vector<OpInput> inputs;
  std::function<Tensor(const std::vector<Tensor>&)> op;
  std::function<Doubles(const std::vector<Doubles>&)> reference;
  double tolerance = 3e-6;        // of f32
  double bf16_tolerance = 0x1p-7;  // one or two roundings of 2^-9 each
};

inline void PrintTo(const OpCase& c, std::ostream* out) { *out << c.name; }

// How activations enter the op.
enum class Entry { f32_leaf, bf16_leaf, bf16_inner };

inline void check_op(const OpCase& c, Entry entry) {
  const bool low = entry != Entry::f32_leaf;
  std::vector<Doubles> values;
  std::vector<Tensor> leaves, inputs;
  for (size_t i = 0; i < c.inputs.size(); ++i) {
    const OpInput& in = c.inputs[i];
    Tensor leaf = random_tensor(in.shape, 100 + i, DType::f32, in.scale);
    if (low && in.activation) leaf = leaf.to(DType::bf16);
    values.push_back(values_of(leaf));
    if (entry == Entry::bf16_inner) leaf = leaf.to(DType::f32);
    leaf.set_requires_grad(true);
    leaves.push_back(leaf);
    inputs.push_back(entry == Entry::bf16_inner && in.activation ? ops::cast(leaf, DType::bf16) : leaf);
  }
  Tensor y = c.op(inputs);
  const Doubles expected = c.reference(values);
  const double tolerance = low ? c.bf16_tolerance : c.tolerance;
  ASSERT_TRUE(close(y, expected, tolerance)) << "forward";
  {
    const NoGrad off;  // the same values without a tape, where products of few rows take another path
    EXPECT_TRUE(close(c.op(inputs), expected, tolerance)) << "forward without a tape";
  }
  const Tensor upstream = random_tensor(y.shape(), 99, y.dtype());
  const Doubles upstream_values = values_of(upstream);
  backward(y, upstream);
  EXPECT_EQ(values_of(upstream), upstream_values) << "the upstream gradient was written to";
  for (size_t i = 0; i < leaves.size(); ++i) {
    std::vector<Doubles> point = values;
    const auto loss = [&](const Doubles& x) {
      point[i] = x;
      return reference::inner(c.reference(point), upstream_values);
    };
    const Doubles gradient = reference::finite_difference<double>(loss, values[i]);
    ASSERT_TRUE(leaves[i].grad().defined()) << "input " << i << " has no gradient";
    EXPECT_EQ(leaves[i].grad().dtype(), DType::f32);
    EXPECT_EQ(leaves[i].grad().shape(), leaves[i].shape());
    EXPECT_TRUE(close(leaves[i].grad(), gradient, tolerance)) << "gradient of input " << i;
  }
}

}  // namespace qkv::test
