// Products of block weights with activations rounded to bytes: the rate at which one token (and a few) reads
// a matrix that lies in memory, beside the measured read bandwidth, and the arithmetic of many tokens beside
// the integer peak.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <string>
#include <vector>

#include "qkv/core/parallel.h"
#include "qkv/core/rng.h"
#include "qkv/kernels/kernels.h"
#include "qkv/tensor/dtype.h"
#include "qkv/tensor/machine.h"
#include "qkv/tensor/ops/rounded_rows.h"
#include "qkv/tensor/tensor.h"

namespace {

using namespace qkv;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// The best of `rounds`.
template <typename Body>
double seconds_of(int rounds, Body&& body) {
  body();
  double best = 1e30;
  for (int i = 0; i < rounds; ++i) {
    const double begin = now();
    body();
    best = std::min(best, now() - begin);
  }
  return best;
}

// Random codes under small scales: any bytes do but f16 scales that are infinite.
Tensor random_blocks(DType type, int64_t rows, int64_t cols) {
  Tensor w = Tensor::empty({rows, cols}, type);
  Rng rng(1);
  auto* bytes = reinterpret_cast<uint8_t*>(w.raw());
  for (uint64_t i = 0; i < w.bytes(); ++i)
    bytes[i] = static_cast<uint8_t>(0x3F & static_cast<int>(256 * rng.uniform()));
  return w;
}

void multiply(const Tensor& x, const Tensor& w, Tensor& y) {
  const ops::detail::BlockProduct product = {&w, y.data<float>(), y.cols()};
  ops::detail::rounded_products(ops::detail::RoundedRows(x), {&product, 1});
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t cols = 2048, rows = 65536 / 2;
  std::vector<std::string> types = {"q4_0", "q8_0", "q4_k", "q5_k", "q6_k", "q2_k", "q3_k", "iq4_xs"};
  if (argc > 1) types.assign(argv + 1, argv + argc);
  fmt::print("{} threads, {}\n", num_threads(), isa_name(active_isa()));
  fmt::print("{:8} {:>9} {:>9} {:>9} {:>9} {:>9} {:>10} {:>9}\n", "type", "read GB/s", "1 token", "2", "4",
             "8", "512: TOP/s", "peak");
  for (const std::string& name : types) {
    const DType type = dtype_from_name(name).value();
    const Tensor w = random_blocks(type, rows, cols);
    const double bytes = static_cast<double>(w.bytes());
    std::string line = fmt::format("{:8} {:>9.1f}", name, measure_read_bandwidth() / 1e9);
    for (int64_t tokens : {1, 2, 4, 8}) {
      const Tensor x = Tensor::full({tokens, cols}, 0.5f);
      Tensor y = Tensor::empty({tokens, rows});
      const double seconds = seconds_of(7, [&] { multiply(x, w, y); });
      line += fmt::format(" {:>9.1f}", bytes / seconds / 1e9);
    }
    const int64_t tokens = 512, few = 2048;
    const Tensor x = Tensor::full({tokens, cols}, 0.5f);
    Tensor y = Tensor::empty({tokens, few});
    const double seconds = seconds_of(7, [&] { multiply(x, w.row_view(0, few), y); });
    fmt::print("{} {:>10.2f} {:>9.2f}\n", line, 2e-12 * tokens * few * cols / seconds,
               measure_int8_ops() / 1e12);
  }
}
