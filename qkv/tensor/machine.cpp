#include "qkv/tensor/machine.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include "qkv/core/parallel.h"
#include "qkv/kernels/kernels.h"
#include "qkv/tensor/gemm.h"
#include "qkv/tensor/tensor.h"

namespace qkv {
namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Repeats `burst` (which returns the work done) for about `seconds`; the best rate of any.
template <typename Burst>
double best_rate(double seconds, Burst&& burst) {
  double best = 0;
  const double end = now() + seconds;
  do {
    const double begin = now();
    const double work = burst();
    best = std::max(best, work / (now() - begin));
  } while (now() < end);
  return best;
}

// Work done by all threads together, each running `body` once.
template <typename Body>
double on_all_threads(Body&& body) {
  const int threads = num_threads();
  std::vector<double> work(static_cast<size_t>(threads));
  parallel_for(threads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) work[static_cast<size_t>(i)] = body();
  });
  double total = 0;
  for (double w : work) total += w;
  return total;
}

}  // namespace

double measure_f32_flops(double seconds) {
  return best_rate(seconds, [] {
    return on_all_threads([] {
      float sink = 0;
      return kernels().fma_burst(400000, &sink);
    });
  });
}

double measure_int8_ops(double seconds) {
  return best_rate(seconds, [] {
    return on_all_threads([] {
      int32_t sink = 0;
      return kernels().int8_burst(400000, &sink);
    });
  });
}

double measure_bf16_flops(double seconds) {
  constexpr int64_t n = 1024;
  const Tensor a = Tensor::full({n, n}, 0.5f, DType::bf16), b = Tensor::full({n, n}, 0.25f, DType::bf16);
  Tensor c = Tensor::empty({n, n});
  return best_rate(seconds, [&] {
    gemm(n, n, n, {a.raw(), DType::bf16, n, false}, {b.raw(), DType::bf16, n, true}, c.raw(), DType::f32, n, false);
    return 2.0 * n * n * n;
  });
}

double measure_read_bandwidth(double seconds) {
  // Larger than any last-level cache share we expect, read once per burst in four streams per thread.
  constexpr int64_t kBytes = int64_t{256} << 20;
  Tensor data = Tensor::zeros({kBytes / 4});
  const float* p = data.data<float>();
  const int threads = num_threads();
  const int64_t streams = 4 * threads, stream_length = kBytes / 4 / streams;
  std::vector<double> sums(static_cast<size_t>(threads));
  return best_rate(seconds, [&] {
    parallel_for(threads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        const float* stream = p + 4 * t * stream_length;
        double sum = 0;
        constexpr int64_t piece = 1024;  // elements of each stream in turn
        for (int64_t i = 0; i + piece <= stream_length; i += piece) {
          for (int s = 0; s < 4; ++s) sum += kernels().sum_of_squares(stream + s * stream_length + i, piece);
        }
        sums[static_cast<size_t>(t)] = sum;
      }
    });
    return static_cast<double>(streams * (stream_length / 1024 * 1024) * 4);
  });
}

MachinePeaks measure_machine() {
  return {measure_f32_flops(), measure_bf16_flops(), measure_int8_ops(), measure_read_bandwidth()};
}

}  // namespace qkv
