// Attention forward and backward through the tape: 12 heads of 64, one sequence, f32, causal. One JSON line per length.
//   bench_attention [LENGTH ...]
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <vector>

#include "qkv/core/json.h"
#include "qkv/core/parallel.h"
#include "qkv/core/rng.h"
#include "qkv/tensor/machine.h"
#include "qkv/tensor/ops.h"

namespace qkv {
namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

Tensor random_leaf(Shape shape, Rng& rng) {
  Tensor t = Tensor::empty(shape);
  for (int64_t i = 0; i < t.elements(); ++i) t.data<float>()[i] = rng.normal();
  return t.set_requires_grad(true);
}

void run(int64_t length) {
  AttentionSpec spec;
  spec.n_heads = spec.n_kv_heads = 12;
  spec.qk_dim = spec.v_dim = 64;
  spec.scale = 0.125f;
  Rng rng(3);
  Tensor q = random_leaf({length, 768}, rng), k = random_leaf({length, 768}, rng), v = random_leaf({length, 768}, rng);
  const Tensor upstream = Tensor::full({length, 768}, 1.0f);
  const uint64_t before = memory_use().current;
  reset_peak();
  std::vector<double> seconds;
  for (int i = 0; i < 6; ++i) {
    const double start = now();
    backward(ops::attention(q, k, v, {{0, length}}, spec), upstream);
    if (i > 0) seconds.push_back(now() - start);
    for (Tensor* t : {&q, &k, &v}) t->clear_grad();
  }
  std::sort(seconds.begin(), seconds.end());
  const double median = seconds[seconds.size() / 2];
  // 2 products forward and 5 backward, each 2 T^2 d per head, half of it masked.
  const double flops = 7.0 * static_cast<double>(length) * static_cast<double>(length) * 64 * 12;
  const double peak = measure_f32_flops();
  fmt::print("{}\n", dump_json({{"length", length}, {"milliseconds", 1e3 * median}, {"threads", num_threads()}, {"gflops", flops / median / 1e9},
                                {"utilization", flops / median / peak}, {"peak_growth_mib", static_cast<double>(memory_use().peak - before) / 1048576}}));
}

}  // namespace
}  // namespace qkv

int main(int argc, char** argv) {
  std::vector<int64_t> lengths;
  for (int i = 1; i < argc; ++i) lengths.push_back(std::atoll(argv[i]));
  if (lengths.empty()) lengths = {1024, 2048, 4096};
  for (int64_t length : lengths) qkv::run(length);
}
