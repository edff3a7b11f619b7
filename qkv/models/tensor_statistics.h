// What a stored tensor holds: moments of its values, and how much information its codes carry (Shannon 1948),
// which bounds what lossless compression can reach.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "qkv/tensor/tensor.h"

namespace qkv {

struct TensorStatistics {
  int64_t elements = 0, zeros = 0, nans = 0, infinities = 0;
  // Of the finite values, dequantized; all 0 if there are none. Kurtosis is the fourth standardized moment: 3
  // for a normal distribution, more for one with outliers; 0 if all values are equal.
  double minimum = 0, maximum = 0, mean = 0, deviation = 0, kurtosis = 0;
  // Of the stored codes: 16-bit symbols for types of two bytes, bytes for all others (a block's scales
  // included).
  double entropy = 0;  // bits per symbol
  int symbol_bits = 8;
  // Of the exponent fields alone, for floating-point types.
  std::optional<double> exponent_entropy;
  int exponent_bits = 0;
};

// In parallel, in pieces: takes no memory to speak of beside the tensor. The same bits for any number of
// threads.
TensorStatistics tensor_statistics(const Tensor& tensor);

// Counts of the finite values in equal bins from `minimum` to `maximum`, both included.
std::vector<int64_t> tensor_histogram(const Tensor& tensor, double minimum, double maximum, int bins);

}  // namespace qkv
