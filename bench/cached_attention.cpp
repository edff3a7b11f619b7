// Times decode attention over pages, alone: one layer's worth of heads for one token, for each type of cache.
// GB/s are bytes of keys and values read per second by all threads, beside the read bandwidth of the memory
// measured in the same run.
//
//   bench_cached_attention [--heads 12] [--kv-heads 12] [--dim 64] [--layers 12] [--repeats 9] [--page 32]
//                          [--queries 1] [LENGTH...]
//
// So many layers are gone through in turn, as a model does, so that short lengths do not stay in a core's
// cache.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "qkv/core/parallel.h"
#include "qkv/core/rng.h"
#include "qkv/nn/kv_state.h"
#include "qkv/tensor/autograd.h"
#include "qkv/tensor/machine.h"

namespace {

using namespace qkv;

struct Options {
  int heads = 12, kv_heads = 12, dim = 64, layers = 12, repeats = 9, queries = 1;
  int64_t page = 32;
  std::vector<int64_t> lengths;
};

Tensor random(int64_t rows, int64_t cols, uint64_t seed) {
  Tensor t = Tensor::empty({rows, cols});
  Rng rng(seed);
  for (int64_t i = 0; i < t.elements(); ++i) t.data<float>()[i] = static_cast<float>(rng.normal());
  return t;
}

void run(const Options& options, int64_t length, DType type) {
  AttentionSpec spec;
  spec.n_heads = options.heads;
  spec.n_kv_heads = options.kv_heads;
  spec.qk_dim = spec.v_dim = options.dim;
  spec.scale = 1.0f / std::sqrt(static_cast<float>(options.dim));
  CacheOptions cache;
  cache.k_type = cache.v_type = type;
  cache.page_tokens = options.page;
  const int64_t width = int64_t{options.kv_heads} * options.dim;
  const Tensor k = random(length, width, 1), v = random(length, width, 2);
  std::vector<KvState> layers;
  for (int i = 0; i < options.layers; ++i) {
    layers.emplace_back(CacheLayout{options.kv_heads, options.dim, options.dim}, cache);
    layers.back().append(k, v);
  }
  const Tensor q = random(options.queries, int64_t{options.heads} * options.dim, 3);
  Tensor out = Tensor::empty(q.shape());
  std::vector<double> seconds;
  for (int r = 0; r <= options.repeats; ++r) {
    const auto start = std::chrono::steady_clock::now();
    for (const KvState& layer : layers) {
      const ops::CachedSequence sequence = layer.view(0, options.queries);
      ops::attend_cached(q, {}, layer.layout(), {&sequence, 1}, out, spec);
    }
    if (r > 0)
      seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::sort(seconds.begin(), seconds.end());
  const double bytes = static_cast<double>(layers[0].layout().bytes_per_token()) *
                       static_cast<double>(length) * options.layers;
  std::printf("  %-5s %7lld tokens  median %8.1f us  best %8.1f us  %6.1f GB/s (best %.1f)\n",
              name(type).data(), static_cast<long long>(length), seconds[seconds.size() / 2] * 1e6,
              seconds[0] * 1e6, bytes / seconds[seconds.size() / 2] * 1e-9, bytes / seconds[0] * 1e-9);
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name.rfind("--", 0) == 0 && i + 1 < argc) {
      const int value = std::atoi(argv[++i]);
      if (name == "--heads") options.heads = value;
      if (name == "--kv-heads") options.kv_heads = value;
      if (name == "--dim") options.dim = value;
      if (name == "--layers") options.layers = value;
      if (name == "--repeats") options.repeats = value;
      if (name == "--queries") options.queries = value;
      if (name == "--page") options.page = value;
    } else {
      options.lengths.push_back(std::atoll(argv[i]));
    }
  }
  if (options.lengths.empty()) options.lengths = {1024, 4096};
  const NoGrad off;
  std::printf(
      "%d/%d heads x %d, %d queries, %d layers, pages of %lld, %d threads, read bandwidth %.1f GB/s\n",
      options.heads, options.kv_heads, options.dim, options.queries, options.layers,
      static_cast<long long>(options.page), num_threads(), measure_read_bandwidth() * 1e-9);
  for (const int64_t length : options.lengths) {
    for (const DType type : {DType::f32, DType::f16, DType::bf16, DType::q8_0, DType::q5_1, DType::q4_0})
      run(options, length, type);
  }
  std::printf("read bandwidth %.1f GB/s\n", measure_read_bandwidth() * 1e-9);
}
