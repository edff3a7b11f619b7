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
  // Bits per byte of each byte of an element, the least significant first, for plain types of several bytes:
  // what coding the planes apart can reach at best. Empty for others.
  std::vector<double> plane_entropy;

  // The stored bits that order-0 coding needs at best, as a share of them: planes apart where there are some.
  double entropy_share() const;
};

// In parallel, in pieces: takes no memory to speak of beside the tensor. The same bits for any number of
// threads.
TensorStatistics tensor_statistics(const Tensor& tensor);

// The root mean squares of a matrix's rows (outputs of a linear layer stored as usual) and columns (inputs);
// leading dimensions count as rows. Values that are not finite count as 0. Empty for nf4 and for what has
// less than two dimensions.
struct ChannelSizes {
  std::vector<double> rows, columns;
};
ChannelSizes channel_sizes(const Tensor& tensor);

// Channels that stand out: more than twice the median, and beyond it by more than six robust standard
// deviations (1.4826 times the median distance from the median).
struct ChannelOutliers {
  int64_t channels = 0, zero = 0, outliers = 0;
  double median = 0;
  struct Channel {
    int64_t index = 0;
    double size = 0;
  };
  std::vector<Channel> largest;  // of the outliers, the largest first, at most kOutliersNamed
};
constexpr size_t kOutliersNamed = 8;
ChannelOutliers channel_outliers(const std::vector<double>& sizes);

// Counts of the finite values in equal bins from `minimum` to `maximum`, both included.
std::vector<int64_t> tensor_histogram(const Tensor& tensor, double minimum, double maximum, int bins);

}  // namespace qkv
