// Times the attention kernels alone, on one sequence: wall milliseconds, GFLOP/s of the products that the
// mask leaves (forward 4, backward 10 operations per visible score and element), and GFLOP/s per second of
// processor time beside the f32 peak of a core measured in the same way between the runs: the share that
// stays meaningful on a busy machine.
//
//   bench_attention_kernels [--heads 12] [--kv-heads 12] [--dim 64] [--threads 2] [--repeats 7] [--window 0]
//   [--full]
//                           [--softcap 0] [--bf16] [--queries 0] [LENGTH...]
//
// --queries N: only the last N positions ask (1: decoding one token).
#include <time.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "qkv/kernels/kernels.h"

namespace {

using namespace qkv;

struct Options {
  int heads = 12, kv_heads = 12, dim = 64, threads = 2, repeats = 7;
  int64_t window = 0, queries = 0;
  float softcap = 0;
  bool causal = true, bf16_storage = false;
  std::vector<int64_t> lengths;
};

struct Time {
  double wall = 0, processor = 0;  // seconds; processor: summed over threads
};

double clock_seconds(clockid_t clock) {
  timespec now{};
  ::clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Runs task(i, thread) for i in [0, n) on `threads` threads.
Time parallel(int threads, int64_t n, const std::function<void(int64_t, int)>& task) {
  std::atomic<int64_t> next{0};
  std::vector<double> processor(static_cast<size_t>(threads));
  const auto work = [&](int thread) {
    const double start = clock_seconds(CLOCK_THREAD_CPUTIME_ID);
    for (int64_t i = next++; i < n; i = next++) task(i, thread);
    processor[static_cast<size_t>(thread)] = clock_seconds(CLOCK_THREAD_CPUTIME_ID) - start;
  };
  const double start = clock_seconds(CLOCK_MONOTONIC);
  std::vector<std::thread> others;
  for (int t = 1; t < threads; ++t) others.emplace_back(work, t);
  work(0);
  for (auto& other : others) other.join();
  Time time{clock_seconds(CLOCK_MONOTONIC) - start, 0};
  for (double seconds : processor) time.processor += seconds;
  return time;
}

// Floating-point operations per second of processor time.
double core_peak(int threads) {
  std::vector<double> operations(static_cast<size_t>(threads));
  const Time time = parallel(threads, threads, [&](int64_t, int thread) {
    float sink;
    operations[static_cast<size_t>(thread)] += kernels().fma_burst(2000000, &sink);
  });
  double sum = 0;
  for (double n : operations) sum += n;
  return sum / time.processor;
}

template <typename T>
std::vector<T> random_values(int64_t n, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<T> values(static_cast<size_t>(n));
  for (T& x : values) x = from_float<T>(normal(generator));
  return values;
}

void report(const char* name, std::vector<Time> times, double operations, double peak) {
  const auto wall = [](const Time& a, const Time& b) { return a.wall < b.wall; };
  const auto processor = [](const Time& a, const Time& b) { return a.processor < b.processor; };
  const double core = operations / std::min_element(times.begin(), times.end(), processor)->processor;
  std::sort(times.begin(), times.end(), wall);
  const double least = times.front().wall, median = times[times.size() / 2].wall;
  std::printf(
      "  %-9s min %9.3f ms  median %9.3f ms  %6.1f GFLOP/s;  a core %5.1f GFLOP/s = %4.1f %% of %.1f\n", name,
      least * 1e3, median * 1e3, operations / least * 1e-9, core * 1e-9, 100 * core / peak, peak * 1e-9);
}

template <typename T>
void run(const Options& options, int64_t length) {
  AttentionSpec spec;
  spec.n_heads = options.heads;
  spec.n_kv_heads = options.kv_heads;
  spec.qk_dim = spec.v_dim = options.dim;
  spec.scale = 1.0f / std::sqrt(static_cast<float>(options.dim));
  spec.causal = options.causal;
  spec.window = options.window;
  spec.softcap = options.softcap;
  const int64_t n_q = options.queries > 0 ? options.queries : length;
  const int64_t q_width = int64_t{spec.n_heads} * spec.qk_dim,
                k_width = int64_t{spec.n_kv_heads} * spec.qk_dim;
  const int group = spec.n_heads / spec.n_kv_heads;

  const auto q = random_values<T>(n_q * q_width, 1), k = random_values<T>(length * k_width, 2);
  const auto v = random_values<T>(length * k_width, 3), dout = random_values<T>(n_q * q_width, 4);
  std::vector<T> out(q.size()), dq(q.size());
  std::vector<float> dk(k.size()), dv(v.size()), lse(static_cast<size_t>(n_q * spec.n_heads));
  AttentionSequence<T> sequence{q.data(), k.data(), v.data(), out.data(), lse.data(), n_q,
                                length,   q_width,  k_width,  k_width,    q_width};

  const auto& table = kernels().typed<T>();
  const size_t bytes = table.attention_scratch_bytes(spec, n_q * group);
  std::vector<std::unique_ptr<void, decltype(&std::free)>> scratch;
  for (int t = 0; t < options.threads; ++t)
    scratch.emplace_back(std::aligned_alloc(64, (bytes + 63) / 64 * 64), &std::free);

  // Forward: a kv head's query heads together, queries in ranges. Backward: a kv head each.
  const int64_t range = 1536 / group < 1 ? 1 : 1536 / group;
  const int64_t ranges = (n_q + range - 1) / range;
  const auto forward = [&] {
    return parallel(options.threads, ranges * spec.n_kv_heads, [&](int64_t task, int thread) {
      const int kv = static_cast<int>(task % spec.n_kv_heads);
      const int64_t begin = (ranges - 1 - task / spec.n_kv_heads) * range;
      table.attention_forward(spec, sequence, kv * group, (kv + 1) * group, begin,
                              std::min(n_q, begin + range), scratch[static_cast<size_t>(thread)].get());
    });
  };
  const auto backward = [&] {
    std::fill(dk.begin(), dk.end(), 0.0f);
    std::fill(dv.begin(), dv.end(), 0.0f);
    return parallel(options.threads, spec.n_kv_heads, [&](int64_t task, int thread) {
      const int kv = static_cast<int>(task);
      const AttentionGradients<T> gradients{
          dout.data(), dq.data(), dk.data() + kv * spec.qk_dim, dv.data() + kv * spec.qk_dim,
          k_width,     k_width};
      table.attention_backward(spec, sequence, gradients, kv * group, (kv + 1) * group, 0, n_q,
                               scratch[static_cast<size_t>(thread)].get());
    });
  };

  double visible = 0;
  for (int64_t i = 0; i < n_q; ++i) {
    const int64_t position = i + length - n_q, end = spec.causal ? position + 1 : length;
    visible +=
        static_cast<double>(end - (spec.window > 0 ? std::max<int64_t>(0, position - spec.window + 1) : 0));
  }
  const double unit = visible * spec.n_heads * spec.qk_dim;
  std::vector<Time> forward_times, backward_times, both;
  double peak = 0;
  forward();
  for (int i = 0; i < options.repeats; ++i) {
    peak = std::max(peak, core_peak(options.threads));
    const Time f = forward(), b = options.queries > 0 ? Time{} : backward();
    forward_times.push_back(f);
    backward_times.push_back(b);
    both.push_back({f.wall + b.wall, f.processor + b.processor});
  }
  std::printf("%lld keys, %lld queries, %d/%d heads x %d, %s, %d threads, %s, scratch %.1f MB\n",
              static_cast<long long>(length), static_cast<long long>(n_q), spec.n_heads, spec.n_kv_heads,
              spec.qk_dim, options.bf16_storage ? "bf16" : "f32", options.threads, isa_name(active_isa()),
              static_cast<double>(bytes) * 1e-6);
  report("forward", forward_times, 4 * unit, peak);
  if (options.queries > 0) {
    double least = forward_times[0].processor;
    for (const Time& time : forward_times) least = std::min(least, time.processor);
    std::printf("  a core reads keys and values at %.1f GB/s\n",
                2e-9 * static_cast<double>(k.size() * sizeof(T)) / least);
    return;
  }
  report("backward", backward_times, 10 * unit, peak);
  report("both", both, 14 * unit, peak);
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--full") {
      options.causal = false;
    } else if (name == "--bf16") {
      options.bf16_storage = true;
    } else if (name.rfind("--", 0) == 0 && i + 1 < argc) {
      const double value = std::atof(argv[++i]);
      if (name == "--heads") options.heads = static_cast<int>(value);
      if (name == "--kv-heads") options.kv_heads = static_cast<int>(value);
      if (name == "--dim") options.dim = static_cast<int>(value);
      if (name == "--threads") options.threads = static_cast<int>(value);
      if (name == "--repeats") options.repeats = static_cast<int>(value);
      if (name == "--window") options.window = static_cast<int64_t>(value);
      if (name == "--queries") options.queries = static_cast<int64_t>(value);
      if (name == "--softcap") options.softcap = static_cast<float>(value);
    } else {
      options.lengths.push_back(std::atoll(argv[i]));
    }
  }
  if (options.lengths.empty()) options.lengths = {1024, 2048, 4096};
  options.kv_heads = std::min(options.kv_heads, options.heads);
  for (int64_t length : options.lengths) {
    if (options.bf16_storage) {
      run<bf16>(options, length);
    } else {
      run<float>(options, length);
    }
  }
}
