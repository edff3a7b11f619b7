#include "qkv/models/weight_memory.h"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <limits>
#include <string>

#include "qkv/core/parallel.h"

namespace qkv {
namespace {

constexpr uint64_t kAlignment = 64;
constexpr int64_t kCopiedAtATime = int64_t{1} << 20;
constexpr uint64_t kUnlimited = std::numeric_limits<uint64_t>::max();

// The number behind `key` in a file of such lines, or `otherwise`.
uint64_t number_in(const char* path, const std::string& key, uint64_t otherwise) {
  std::ifstream file(path);
  std::string word;
  uint64_t value = 0;
  while (file >> word) {
    if (word == key && file >> value) return value;
  }
  return otherwise;
}

uint64_t group_limit() {
  std::ifstream file("/sys/fs/cgroup/memory.max");
  uint64_t limit = 0;
  return file >> limit ? limit : kUnlimited;  // "max", or no such file
}

}  // namespace

uint64_t available_memory_bytes() {
  const uint64_t machine = number_in("/proc/meminfo", "MemAvailable:", 0) * 1024;
  const uint64_t limit = group_limit();
  if (limit == kUnlimited) return machine;
  const uint64_t taken = number_in("/sys/fs/cgroup/memory.stat", "anon", 0);
  return std::min(machine, limit - std::min(limit, taken));
}

WeightMemory::WeightMemory(uint64_t bytes, uint64_t count) {
  const uint64_t needed = bytes + count * kAlignment;
  // A quarter is left to caches, activations and everybody else.
  if (bytes > 0 && needed <= available_memory_bytes() / 4 * 3)
    block_ = Tensor::empty({static_cast<int64_t>(needed)}, DType::u8);
}

Tensor WeightMemory::take(const Tensor& values) {
  const uint64_t bytes = values.bytes();
  if (!block_.defined() || used_ + bytes > block_.bytes()) return values;
  std::byte* to = block_.raw() + used_;
  const std::byte* from = values.raw();
  used_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
  parallel_for(static_cast<int64_t>(bytes), kCopiedAtATime, [&](int64_t begin, int64_t end) {
    std::memcpy(to + begin, from + begin, static_cast<size_t>(end - begin));
  });
  return Tensor::borrowed(to, values.shape(), values.dtype(), std::make_shared<Tensor>(block_));
}

}  // namespace qkv
