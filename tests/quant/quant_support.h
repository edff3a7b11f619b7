// The reference vectors of tests/golden/quant: bitsandbytes, AutoGPTQ and llm-awq on small matrices, and
// matrices to test on.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "qkv/core/json.h"
#include "qkv/core/rng.h"
#include "qkv/quant/input_statistics.h"
#include "qkv/quant/uniform.h"
#include "tests/support/golden_safetensors.h"
#include "tests/support/test_paths.h"

namespace qkv::test {

class QuantGolden {
 public:
  QuantGolden()
      : tensors_(golden("quant/quant.safetensors")), settings_(load_json(golden("quant/quant.json"))) {}
  std::vector<double> values(const std::string& name) const { return tensors_.values(name); }
  const Json& settings(const std::string& name) const { return settings_.at(name); }
  Tensor matrix(const std::string& name) const {
    const auto values = tensors_.values(name);
    return Tensor::from(std::vector<float>(values.begin(), values.end()), Shape(tensors_.shape(name)));
  }
  InputStatistics inputs() const {
    const Tensor x = matrix("gptq.calib_x");
    InputStatistics statistics(x.cols(), true);
    statistics.add(x);
    return statistics;
  }

 private:
  GoldenSafetensors tensors_;
  Json settings_;
};

// Equal up to `tolerance` of the expected value, or of `floor` where that is smaller.
template <typename Found>
void expect_close(const Found& found, const std::vector<double>& expected, double tolerance,
                  const std::string& what, double floor = 0) {
  ASSERT_EQ(static_cast<size_t>(found.size()), expected.size()) << what;
  for (size_t i = 0; i < expected.size(); ++i) {
    const auto value = static_cast<double>(found[i]);
    ASSERT_LE(std::abs(value - expected[i]), tolerance * std::max(std::abs(expected[i]), floor))
        << what << " at " << i << ": " << value << " for " << expected[i];
  }
}

inline Tensor random_matrix(int64_t rows, int64_t columns, uint64_t seed, float deviation = 1) {
  Rng rng(seed);
  Tensor matrix = Tensor::empty({rows, columns});
  for (int64_t i = 0; i < matrix.elements(); ++i) matrix.data<float>()[i] = deviation * rng.normal();
  return matrix;
}

// Inputs (rows, columns) that are mixtures of a few common factors, with columns of different sizes: what
// real activations have and independent ones lack.
inline Tensor correlated_inputs(int64_t rows, int64_t columns, uint64_t seed) {
  constexpr int64_t kFactors = 8;
  const Tensor mixing = random_matrix(kFactors, columns, seed),
               factors = random_matrix(rows, kFactors, seed + 1);
  Tensor x = random_matrix(rows, columns, seed + 2, 0.3f);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) {
      float& value = x.data<float>()[r * columns + c];
      for (int64_t f = 0; f < kFactors; ++f)
        value += factors.data<float>()[r * kFactors + f] * mixing.data<float>()[f * columns + c];
      if (c % 16 == 3) value *= 8;
    }
  }
  return x;
}

inline InputStatistics statistics_of(const Tensor& x) {
  InputStatistics statistics(x.cols(), true);
  statistics.add(x);
  return statistics;
}

}  // namespace qkv::test
