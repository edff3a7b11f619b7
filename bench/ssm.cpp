// The state-space ops on one thread: Mamba's selective scan against the plain loop over tokens, channels and
// states, and Mamba-2's chunks against its recurrence. One JSON line each.
//   bench_ssm [TOKENS ...]
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <nlohmann/json.hpp>
#include <vector>

#include "qkv/core/json.h"
#include "qkv/core/parallel.h"
#include "qkv/core/rng.h"
#include "qkv/tensor/machine.h"
#include "qkv/tensor/ops.h"

namespace qkv {
namespace {

// Processor time: there is one thread, and other programs do not count.
double now() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// Milliseconds of the first and of the second half of `run`, which calls its argument between them: medians
// of five.
struct Times {
  double first, second;
};
Times medians(const std::function<void(const std::function<void()>&)>& run) {
  std::vector<double> first, second;
  for (int i = 0; i < 6; ++i) {
    double middle = 0;
    const double start = now();
    run([&] { middle = now(); });
    if (i == 0) continue;
    first.push_back(1e3 * (middle - start));
    second.push_back(1e3 * (now() - middle));
  }
  std::sort(first.begin(), first.end());
  std::sort(second.begin(), second.end());
  return {first[first.size() / 2], second[second.size() / 2]};
}

Tensor random_leaf(Shape shape, uint64_t seed, float scale = 1) {
  Rng rng(seed);
  Tensor t = Tensor::empty(shape);
  for (int64_t i = 0; i < t.elements(); ++i) t.data<float>()[i] = scale * rng.normal();
  return t.set_requires_grad(true);
}

// The loop that the definition is: what a compiler makes of it.
void plain_scan(const ops::ScanInputs& in, std::vector<float>& states, Tensor& y) {
  const int64_t tokens = in.u.rows(), channels = in.u.cols(), n_states = in.a.dim(1);
  const float *u = in.u.data<float>(), *delta = in.delta.data<float>(), *a = in.a.data<float>(),
              *b = in.b.data<float>(), *c = in.c.data<float>(), *skip = in.skip.data<float>(),
              *z = in.z.data<float>();
  std::fill(states.begin(), states.end(), 0.0f);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t d = 0; d < channels; ++d) {
      const int64_t i = t * channels + d;
      const float step = std::log1p(std::exp(delta[i]));
      float* h = states.data() + d * n_states;
      float sum = skip[d] * u[i];
      for (int64_t n = 0; n < n_states; ++n) {
        h[n] = std::exp(step * a[d * n_states + n]) * h[n] + step * u[i] * b[t * n_states + n];
        sum += h[n] * c[t * n_states + n];
      }
      y.data<float>()[i] = sum * z[i] / (1 + std::exp(-z[i]));
    }
  }
}

void run_scan(int64_t tokens) {
  const int64_t channels = 1536, states = 16;
  ops::ScanInputs in;
  in.u = random_leaf({tokens, channels}, 1);
  in.delta = random_leaf({tokens, channels}, 2);
  in.a = ops::decay_rates(random_leaf({channels, states}, 3, 0.5f)).detach().set_requires_grad(true);
  in.b = random_leaf({tokens, states}, 4);
  in.c = random_leaf({tokens, states}, 5);
  in.skip = random_leaf({channels}, 6);
  in.z = random_leaf({tokens, channels}, 7);
  const Tensor upstream = Tensor::full({tokens, channels}, 1.0f);
  const Times scan = medians([&](const std::function<void()>& half) {
    const Tensor y = ops::selective_scan(in, {{0, tokens}});
    half();
    backward(y, upstream);
  });
  std::vector<float> h(static_cast<size_t>(channels * states));
  Tensor y = Tensor::empty({tokens, channels});
  const Times plain = medians([&](const std::function<void()>& half) {
    plain_scan(in, h, y);
    half();
  });
  // Sixteen vector instructions per vector of states, had each the slot of a multiply-add; four rows read or
  // written.
  const double elements = static_cast<double>(tokens * channels * states);
  const double arithmetic = 1e3 * 16 * elements / (measure_f32_flops() / 2);
  const double memory = 1e3 * 16 * static_cast<double>(tokens * channels) / measure_read_bandwidth();
  fmt::print("{}\n", dump_json({{"op", "selective_scan"},
                                {"isa", isa_name(active_isa())},
                                {"tokens", tokens},
                                {"channels", channels},
                                {"states", states},
                                {"forward_ms", scan.first},
                                {"backward_ms", scan.second},
                                {"plain_forward_ms", plain.first},
                                {"times_plain", plain.first / scan.first},
                                {"arithmetic_limit_ms", arithmetic},
                                {"memory_limit_ms", memory}}));
}

void run_ssd(int64_t tokens) {
  const int64_t heads = 24, head_dim = 64, states = 128;
  ops::SsdInputs in;
  in.x = random_leaf({tokens, heads * head_dim}, 1);
  in.dt = random_leaf({tokens, heads}, 2);
  in.a = ops::decay_rates(random_leaf({heads}, 3)).detach().set_requires_grad(true);
  in.b = random_leaf({tokens, states}, 4);
  in.c = random_leaf({tokens, states}, 5);
  in.skip = random_leaf({heads}, 6);
  const Tensor upstream = Tensor::full(in.x.shape(), 1.0f);
  const Times chunks = medians([&](const std::function<void()>& half) {
    const Tensor y = ops::ssd(in, {{0, tokens}});
    half();
    backward(y, upstream);
  });
  const NoGrad off;
  const Tensor state = Tensor::zeros({heads, states, head_dim});
  const Times steps =
      medians([&](const std::function<void()>& half) {  // sixteen tokens at a time go by the recurrence
        for (int64_t t = 0; t + 16 <= tokens; t += 16) {
          ops::SsdInputs part = in;
          for (Tensor* p : {&part.x, &part.dt, &part.b, &part.c}) *p = p->row_view(t, t + 16);
          ops::ssd(part, {{0, 16}}, {}, {state});
        }
        half();
      });
  // Products of a chunk of L: half of C B^T for all heads; per head half of scores times x, the state's share
  // of the outputs, and the state itself.
  const double per_token =
      96.0 * states + static_cast<double>(heads) * (96.0 * head_dim + 4.0 * states * head_dim);
  fmt::print("{}\n",
             dump_json({{"op", "ssd"},
                        {"isa", isa_name(active_isa())},
                        {"tokens", tokens},
                        {"heads", heads},
                        {"head_dim", head_dim},
                        {"states", states},
                        {"forward_ms", chunks.first},
                        {"backward_ms", chunks.second},
                        {"recurrence_ms", steps.first},
                        {"times_recurrence", steps.first / chunks.first},
                        {"forward_gflops", per_token * static_cast<double>(tokens) / chunks.first / 1e6},
                        {"peak_gflops", measure_f32_flops() / 1e9}}));
}

}  // namespace
}  // namespace qkv

int main(int argc, char** argv) {
  std::vector<int64_t> lengths;
  for (int i = 1; i < argc; ++i) lengths.push_back(std::atoll(argv[i]));
  if (lengths.empty()) lengths = {1024};
  qkv::set_num_threads(1);
  for (const int64_t length : lengths) {
    qkv::run_scan(length);
    qkv::run_ssd(length);
  }
  return 0;
}
