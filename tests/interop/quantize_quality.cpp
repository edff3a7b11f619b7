// Holds the quantizing searches to ggml's own, loaded from its shared library: for every block type the
// weighted squared error over the same values and importances must be at most ggml's, and both times are
// printed.
//
//   interop_quantize_quality LIBGGML_BASE [MODEL.gguf ...]
#include <dlfcn.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "qkv/core/error.h"
#include "qkv/formats/checkpoint.h"
#include "qkv/kernels/kernels.h"
#include "qkv/quant/quantize.h"
#include "tests/support/random_blocks.h"

namespace qkv::test {
namespace {

using QuantizeChunk = size_t (*)(int type, const float* x, void* out, int64_t start, int64_t rows,
                                 int64_t cols, const float* importance);
using QuantizeInit = void (*)(int type);

struct Matrix {
  std::string name;
  int64_t rows = 0, cols = 0;
  std::vector<float> values;
};

double seconds_of(FunctionRef<void()> work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// sum of w (x - q)^2.
double error_of(BlockType type, const std::vector<uint8_t>& blocks, const Matrix& matrix,
                const std::vector<float>* importance) {
  std::vector<float> back(matrix.values.size());
  kernels().blocks.dequantize[type](blocks.data(), back.data(), static_cast<int64_t>(back.size()));
  double sum = 0;
  for (size_t i = 0; i < back.size(); ++i) {
    const double d = static_cast<double>(matrix.values[i]) - static_cast<double>(back[i]);
    const double w = importance == nullptr
                         ? 1.0
                         : static_cast<double>((*importance)[i % static_cast<size_t>(matrix.cols)]);
    sum += w * d * d;
  }
  return sum;
}

// The same if each block were made as long as its values, as ours are, so that outputs do not shrink: from a
// shortened block of the least error e of an energy n, that makes e / (1 - e / n).
double lengthened_error_of(BlockType type, const std::vector<uint8_t>& blocks, const Matrix& matrix,
                           const std::vector<float>* importance) {
  std::vector<float> back(matrix.values.size());
  kernels().blocks.dequantize[type](blocks.data(), back.data(), static_cast<int64_t>(back.size()));
  const auto length = static_cast<size_t>(block_length(type));
  double sum = 0;
  for (size_t first = 0; first < back.size(); first += length) {
    double error = 0, energy = 0;
    for (size_t i = first; i < first + length; ++i) {
      const double v = matrix.values[i], d = v - static_cast<double>(back[i]);
      const double w = importance == nullptr ? 1.0 : (*importance)[i % static_cast<size_t>(matrix.cols)];
      error += w * d * d;
      energy += w * v * v;
    }
    sum += error < energy ? error / (1 - error / energy) : error;
  }
  return sum;
}

// Normal values, values with heavy tails, and values of columns of very different sizes.
std::vector<Matrix> random_matrices() {
  std::vector<Matrix> matrices;
  for (int kind = 0; kind < 3; ++kind) {
    Matrix m{kind == 0 ? "normal" : kind == 1 ? "heavy tails" : "uneven columns", 64, 2048, {}};
    Rng rng(7, static_cast<uint64_t>(kind));
    for (int64_t i = 0; i < m.rows * m.cols; ++i) {
      float v = 0.02f * rng.normal();
      if (kind == 1) v *= std::exp(0.7f * rng.normal());
      if (kind == 2) v *= 1.0f + 5.0f * static_cast<float>(i % m.cols % 97 == 0);
      m.values.push_back(v);
    }
    matrices.push_back(std::move(m));
  }
  return matrices;
}

std::vector<Matrix> matrices_of(const std::string& path) {
  std::vector<Matrix> matrices;
  const auto checkpoint = open_checkpoint(path);
  for (const auto& entry : checkpoint->entries()) {
    if (entry.shape.rank() != 2 || entry.shape.elements() > 4'000'000) continue;
    matrices.push_back(
        {entry.name, entry.shape.rows(), entry.shape.cols(), checkpoint->read(entry.name).to_floats()});
  }
  return matrices;
}

std::vector<float> random_importance(int64_t cols) {
  Rng rng(9);
  std::vector<float> importance;
  for (int64_t c = 0; c < cols; ++c) importance.push_back(std::exp(1.5f * rng.normal()));
  return importance;
}

int run(int argc, char** argv) {
  void* const library = ::dlopen(argv[1], RTLD_NOW);
  require(library != nullptr, "{}: {}", argv[1], ::dlerror());
  const auto chunk = reinterpret_cast<QuantizeChunk>(::dlsym(library, "ggml_quantize_chunk"));
  const auto init = reinterpret_cast<QuantizeInit>(::dlsym(library, "ggml_quantize_init"));
  require(chunk != nullptr && init != nullptr, "{}: expected ggml_quantize_chunk, found none", argv[1]);

  int failures = 0;
  std::vector<std::pair<std::string, std::vector<Matrix>>> sets;
  for (Matrix& m : random_matrices()) {
    const std::string name = m.name;
    sets.push_back({name, {std::move(m)}});
  }
  for (int i = 2; i < argc; ++i) sets.push_back({argv[i], matrices_of(argv[i])});
  std::printf("%-8s %-11s %-28s %12s %12s %7s %9s %9s %6s\n", "type", "importance", "values", "error",
              "ggml's", "ratio", "Mvalue/s", "ggml's", "ratio");
  for (BlockType type : all_block_types()) {
    if (type == BlockType::q8_1 || type == BlockType::q8_k) continue;
    const int id = traits(*dtype_from_name(name_of(type))).gguf;
    init(id);
    for (const bool weighted : {false, true}) {
      if (!weighted && needs_importance(type)) continue;
      for (const auto& [name, matrices] : sets) {
        double ours = 0, theirs = 0, allowed = 0, our_seconds = 0, their_seconds = 0, values = 0;
        for (const Matrix& m : matrices) {
          if (m.cols % block_length(type) != 0) continue;
          const std::vector<float> importance = random_importance(m.cols);
          const float* w = weighted ? importance.data() : nullptr;
          std::vector<uint8_t> mine(
              static_cast<size_t>(m.rows * m.cols / block_length(type) * block_bytes(type)));
          std::vector<uint8_t> other(mine.size());
          our_seconds +=
              seconds_of([&] { quantize_rows(type, m.values.data(), m.rows, m.cols, w, mine.data()); });
          their_seconds +=
              seconds_of([&] { chunk(id, m.values.data(), other.data(), 0, m.rows, m.cols, w); });
          ours += error_of(type, mine, m, weighted ? &importance : nullptr);
          theirs += error_of(type, other, m, weighted ? &importance : nullptr);
          allowed += lengthened_error_of(type, other, m, weighted ? &importance : nullptr);
          values += static_cast<double>(m.values.size());
        }
        if (values == 0) continue;
        const bool worse = ours > allowed * (1 + 1e-6);
        failures += worse;
        const std::string shown = name.substr(name.find_last_of('/') + 1);
        std::printf("%-8s %-11s %-28s %12.5g %12.5g %7.4f %9.1f %9.1f %6.1f%s\n", name_of(type),
                    weighted ? "random" : "none", shown.c_str(), ours, theirs, ours / theirs,
                    values / our_seconds / 1e6, values / their_seconds / 1e6, their_seconds / our_seconds,
                    worse ? "  WORSE" : "");
      }
    }
  }
  if (failures > 0) std::printf("FAIL: %d errors are larger than ggml's\n", failures);
  return failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace qkv::test

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "expected the path of libggml-base.so\n");
    return 2;
  }
  try {
    return qkv::test::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
}
