#include "system_probe.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "qkv/core/parallel.h"
#include "qkv/kernels/kernels.h"
#include "qkv/tensor/allocator.h"
#include "qkv/tensor/gemm.h"
#include "qkv/tensor/tensor.h"

namespace qkv {
namespace {

constexpr double kSeconds = 0.3;  // per measurement
constexpr uint64_t kBufferBytes = uint64_t{256} << 20;
constexpr int64_t kPieces = 8;
constexpr int64_t kProductSize = 1024;

double seconds_of(FunctionRef<void()> work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// The best rate of repeated work, which a disturbance can only lower. `work` returns the operations it did.
double best_rate(FunctionRef<double()> work) {
  double best = 0, spent = 0;
  while (spent < kSeconds) {
    double operations = 0;
    const double seconds = seconds_of([&] { operations = work(); });
    spent += seconds;
    if (seconds > 0) best = std::max(best, operations / seconds);
  }
  return best;
}

uint64_t sum_in_four_streams(const uint64_t* data, int64_t words) {
  const int64_t quarter = words / 4;
  uint64_t a = 0, b = 0, c = 0, d = 0;
  for (int64_t i = 0; i < quarter; ++i) {
    a += data[i];
    b += data[quarter + i];
    c += data[2 * quarter + i];
    d += data[3 * quarter + i];
  }
  return a + b + c + d;
}

// One burst per thread.
double burst_rate(FunctionRef<double()> burst) {
  const int threads = num_threads();
  std::vector<double> operations(static_cast<size_t>(threads));
  return best_rate([&] {
    parallel_for(threads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) operations[static_cast<size_t>(i)] = burst();
    });
    double total = 0;
    for (const double part : operations) total += part;
    return total;
  });
}

}  // namespace

SystemMemory system_memory() {
  SystemMemory memory;
  std::ifstream file("/proc/meminfo");
  std::string key, unit;
  for (uint64_t kib = 0; file >> key >> kib; std::getline(file, unit)) {
    if (key == "MemTotal:") memory.total = kib << 10;
    if (key == "MemAvailable:") memory.available = kib << 10;
  }
  // Of a control group without a limit the file says "max", which is no number.
  uint64_t limit = 0, used = 0;
  if (std::ifstream("/sys/fs/cgroup/memory.max") >> limit &&
      std::ifstream("/sys/fs/cgroup/memory.current") >> used) {
    memory.total = std::min(memory.total, limit);
    memory.available = std::min(memory.available, limit - std::min(limit, used));
  }
  return memory;
}

uint64_t resident_bytes_beside(const std::string& model) {
  std::error_code ignored;
  const std::string whole = std::filesystem::canonical(model, ignored).string();
  std::ifstream file("/proc/self/smaps");
  std::string line;
  uint64_t total = 0, kib = 0;
  bool counts = true;
  while (std::getline(file, line)) {
    if (std::sscanf(line.c_str(), "Rss: %lu kB", &kib) == 1) {
      if (counts) total += kib << 10;
    } else if (line.find(':') == std::string::npos || line.find(' ') < line.find(':')) {  // a mapping begins
      counts = whole.empty() || line.find(whole) == std::string::npos;
    }
  }
  return total;
}

double measure_read_bandwidth() {
  const std::shared_ptr<std::byte> buffer = allocate(kBufferBytes);
  auto* words = reinterpret_cast<uint64_t*>(buffer.get());
  const auto count = static_cast<int64_t>(kBufferBytes / sizeof(uint64_t));
  parallel_for(count, 4096, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) words[i] = static_cast<uint64_t>(i);
  });
  std::atomic<uint64_t> sink = 0;  // so that the sums are needed
  // Piece after piece, each long out of the caches when its turn comes again: many short measurements find a
  // quiet moment.
  const int64_t piece = count / kPieces;
  int64_t turn = 0;
  return best_rate([&] {
    const uint64_t* start = words + turn++ % kPieces * piece;
    parallel_for(piece, 4096,
                 [&](int64_t begin, int64_t end) { sink = sum_in_four_streams(start + begin, end - begin); });
    return static_cast<double>(kBufferBytes) / kPieces;
  });
}

double measure_f32_peak() {
  return burst_rate([] {
    float sink = 0;
    return kernels().fma_burst(1'000'000, &sink);
  });
}

double measure_int8_peak() {
  return burst_rate([] {
    int32_t sink = 0;
    return kernels().int8_burst(1'000'000, &sink);
  });
}

double measure_bf16_product() {
  const Tensor a = Tensor::full({kProductSize, kProductSize}, 0.5f, DType::bf16);
  const Tensor b = Tensor::full({kProductSize, kProductSize}, 0.25f, DType::bf16);
  Tensor c = Tensor::empty({kProductSize, kProductSize}, DType::f32);
  const auto product = [&] {
    gemm(kProductSize, kProductSize, kProductSize, {a.raw(), DType::bf16, kProductSize, false},
         {b.raw(), DType::bf16, kProductSize, true}, c.raw(), DType::f32, kProductSize, false);
    return 2.0 * kProductSize * kProductSize * kProductSize;
  };
  product();  // the first call makes the primitive
  return best_rate(product);
}

}  // namespace qkv
