// Matrices copied into memory of the process: their bits, and what happens where there is no room.
#include "qkv/models/weight_memory.h"

#include <gtest/gtest.h>

#include <cstring>

#include "qkv/core/rng.h"

namespace qkv {
namespace {

Tensor random_bytes(Shape shape, DType type, uint64_t seed) {
  Tensor result = Tensor::empty(shape, type);
  Rng rng(seed);
  for (uint64_t i = 0; i < result.bytes(); ++i) result.raw()[i] = static_cast<std::byte>(255 * rng.uniform());
  return result;
}

TEST(WeightMemory, CopiesHaveTheSameBits) {
  const std::vector<Tensor> matrices = {
      random_bytes({3, 256}, DType::q4_k, 1), random_bytes({700, 1024}, DType::f32, 2),
      random_bytes({1, 1}, DType::f32, 3), random_bytes({5, 32}, DType::q8_0, 4)};
  uint64_t bytes = 0;
  for (const Tensor& matrix : matrices) bytes += matrix.bytes();
  std::vector<Tensor> copies;
  {
    WeightMemory memory(bytes, matrices.size());
    for (const Tensor& matrix : matrices) copies.push_back(memory.take(matrix));
  }
  for (size_t i = 0; i < matrices.size(); ++i) {
    EXPECT_FALSE(copies[i].same_storage(matrices[i]));
    EXPECT_EQ(copies[i].shape(), matrices[i].shape());
    EXPECT_EQ(copies[i].dtype(), matrices[i].dtype());
    EXPECT_EQ(reinterpret_cast<uintptr_t>(copies[i].raw()) % 64, 0u);
    EXPECT_EQ(std::memcmp(copies[i].raw(), matrices[i].raw(), matrices[i].bytes()), 0) << i;
    if (i > 0) {
      EXPECT_GE(copies[i].raw(), copies[i - 1].raw() + copies[i - 1].bytes());
    }
  }
}

TEST(WeightMemory, WithoutRoomNothingIsCopied) {
  const Tensor matrix = random_bytes({4, 64}, DType::f32, 1);
  WeightMemory none(0, 0), too_much(available_memory_bytes() * 2, 1), for_one(matrix.bytes(), 1);
  EXPECT_TRUE(none.take(matrix).is_same(matrix));
  EXPECT_TRUE(too_much.take(matrix).is_same(matrix));
  EXPECT_FALSE(for_one.take(matrix).is_same(matrix));
  EXPECT_TRUE(for_one.take(matrix).is_same(matrix));
  EXPECT_GT(available_memory_bytes(), 0u);
}

}  // namespace
}  // namespace qkv
