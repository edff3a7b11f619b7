#include "qkv/models/tensor_statistics.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "qkv/core/error.h"
#include "qkv/core/interrupt.h"
#include "qkv/core/parallel.h"
#include "qkv/tensor/convert.h"

namespace qkv {
namespace {

// Elements looked at together: whole blocks of every type, and small enough for the cache.
constexpr int64_t kPiece = int64_t{1} << 16;

// Where the exponent lies in a floating-point type.
struct Exponent {
  int shift, bits;
};

std::optional<Exponent> exponent_of(DType type) {
  switch (type) {
    case DType::f64:
      return Exponent{52, 11};
    case DType::f32:
      return Exponent{23, 8};
    case DType::bf16:
      return Exponent{7, 8};
    case DType::f16:
      return Exponent{10, 5};
    case DType::f8_e4m3:
      return Exponent{3, 4};
    case DType::f8_e5m2:
      return Exponent{2, 5};
    default:
      return std::nullopt;
  }
}

template <typename T>
void widen_integers(const std::byte* data, int64_t first, int64_t n, float* out) {
  const T* in = reinterpret_cast<const T*>(data) + first;
  std::transform(in, in + n, out, [](T x) { return static_cast<float>(x); });
}

// Elements [first, first + n) as floats; f64 and large integers are rounded.
void values_of(const Tensor& tensor, int64_t first, int64_t n, float* out) {
  switch (tensor.dtype()) {
    case DType::i64:
      return widen_integers<int64_t>(tensor.raw(), first, n, out);
    case DType::i32:
      return widen_integers<int32_t>(tensor.raw(), first, n, out);
    case DType::i16:
      return widen_integers<int16_t>(tensor.raw(), first, n, out);
    case DType::i8:
      return widen_integers<int8_t>(tensor.raw(), first, n, out);
    case DType::u64:
      return widen_integers<uint64_t>(tensor.raw(), first, n, out);
    case DType::u32:
      return widen_integers<uint32_t>(tensor.raw(), first, n, out);
    case DType::u16:
      return widen_integers<uint16_t>(tensor.raw(), first, n, out);
    case DType::u8:
    case DType::boolean:
      return widen_integers<uint8_t>(tensor.raw(), first, n, out);
    default:
      return widen(tensor.raw(), tensor.dtype(), first, n, out);
  }
}

bool has_values(DType type) {
  return type != DType::nf4;  // codes without the scales that are in other tensors
}

// Count, extremes and central moments of a piece; pieces are joined pairwise (Pebay, SAND2008-6212, 2008).
struct Moments {
  int64_t finite = 0, zeros = 0, nans = 0, infinities = 0;
  double minimum = std::numeric_limits<double>::infinity(),
         maximum = -std::numeric_limits<double>::infinity();
  double mean = 0, m2 = 0, m3 = 0, m4 = 0;

  void join(const Moments& other) {
    zeros += other.zeros;
    nans += other.nans;
    infinities += other.infinities;
    if (other.finite == 0) return;
    minimum = std::min(minimum, other.minimum);
    maximum = std::max(maximum, other.maximum);
    const auto a = static_cast<double>(finite), b = static_cast<double>(other.finite), n = a + b;
    const double d = other.mean - mean, dn = d / n;
    const double joined4 = m4 + other.m4 + d * dn * dn * dn * a * b * (a * a - a * b + b * b) +
                           6 * dn * dn * (a * a * other.m2 + b * b * m2) + 4 * dn * (a * other.m3 - b * m3);
    const double joined3 = m3 + other.m3 + d * dn * dn * a * b * (a - b) + 3 * dn * (a * other.m2 - b * m2);
    m2 += other.m2 + d * dn * a * b;
    m3 = joined3;
    m4 = joined4;
    mean += dn * b;
    finite += other.finite;
  }
};

Moments moments_of(const float* values, int64_t n) {
  Moments result;
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    const float x = values[i];
    if (!std::isfinite(x)) {
      (std::isnan(x) ? result.nans : result.infinities) += 1;
      continue;
    }
    ++result.finite;
    result.zeros += x == 0 ? 1 : 0;
    sum += x;
    result.minimum = std::min(result.minimum, double{x});
    result.maximum = std::max(result.maximum, double{x});
  }
  if (result.finite == 0) return result;
  const bool all_finite = result.finite == n;
  result.mean = sum / static_cast<double>(result.finite);
  for (int64_t i = 0; i < n; ++i) {
    if (!all_finite && !std::isfinite(values[i])) continue;
    const double d = values[i] - result.mean, d2 = d * d;
    result.m2 += d2;
    result.m3 += d2 * d;
    result.m4 += d2 * d2;
  }
  return result;
}

template <typename Counts>
double entropy_of(const Counts& counts) {
  double total = 0, sum = 0;
  for (const int64_t count : counts) {
    if (count == 0) continue;
    total += static_cast<double>(count);
    sum += static_cast<double>(count) * std::log2(static_cast<double>(count));
  }
  return total > 0 ? std::max(0.0, std::log2(total) - sum / total) : 0;
}

// Counts of the stored codes and of the exponents in them.
class Codes {
 public:
  explicit Codes(DType type)
      : type_(type),
        two_bytes_(traits(type).block_length == 1 && traits(type).block_bytes == 2),
        exponent_(exponent_of(type)),
        symbols_(two_bytes_ ? 65536 : 256),
        exponents_(exponent_ && !two_bytes_ && traits(type).block_bytes > 1 ? size_t{1} << exponent_->bits
                                                                            : 0),
        planes_(traits(type).block_length == 1 && traits(type).block_bytes > 2
                    ? static_cast<size_t>(traits(type).block_bytes)
                    : 0) {}

  void count(const std::byte* data, size_t bytes) {
    if (two_bytes_) {
      for (size_t i = 0; i + 1 < bytes; i += 2) ++symbols_[load<uint16_t>(data + i)];
      return;
    }
    if (planes_.empty()) {
      for (size_t i = 0; i < bytes; ++i) ++symbols_[static_cast<size_t>(data[i])];
      return;
    }
    const size_t width = planes_.size();
    for (size_t i = 0; i + width <= bytes; i += width) {
      for (size_t plane = 0; plane < width; ++plane) ++planes_[plane][static_cast<size_t>(data[i + plane])];
    }
    if (type_ == DType::f32) {
      for (size_t i = 0; i < bytes; i += 4) ++exponents_[load<uint32_t>(data + i) >> 23 & 0xff];
    } else if (type_ == DType::f64) {
      for (size_t i = 0; i < bytes; i += 8) ++exponents_[load<uint64_t>(data + i) >> 52 & 0x7ff];
    }
  }

  void join(const Codes& other) {
    for (size_t i = 0; i < symbols_.size(); ++i) symbols_[i] += other.symbols_[i];
    for (size_t i = 0; i < exponents_.size(); ++i) exponents_[i] += other.exponents_[i];
    for (size_t i = 0; i < planes_.size(); ++i) {
      for (size_t code = 0; code < 256; ++code) planes_[i][code] += other.planes_[i][code];
    }
  }

  void describe(TensorStatistics& statistics) const {
    std::vector<int64_t> symbols = symbols_;
    std::vector<Plane> planes = planes_;
    if (two_bytes_) {
      planes.resize(2);
      for (size_t code = 0; code < symbols.size(); ++code) {
        planes[0][code & 0xff] += symbols[code];
        planes[1][code >> 8] += symbols[code];
      }
    } else {
      for (const Plane& plane : planes) {
        for (size_t code = 0; code < 256; ++code) symbols[code] += plane[code];
      }
    }
    statistics.entropy = entropy_of(symbols);
    statistics.symbol_bits = two_bytes_ ? 16 : 8;
    for (const Plane& plane : planes) statistics.plane_entropy.push_back(entropy_of(plane));
    if (!exponent_) return;
    statistics.exponent_bits = exponent_->bits;
    if (!exponents_.empty()) {
      statistics.exponent_entropy = entropy_of(exponents_);
      return;
    }
    std::vector<int64_t> counts(size_t{1} << exponent_->bits);
    for (size_t code = 0; code < symbols_.size(); ++code) {
      counts[code >> exponent_->shift & (counts.size() - 1)] += symbols_[code];
    }
    statistics.exponent_entropy = entropy_of(counts);
  }

 private:
  template <typename T>
  static T load(const std::byte* data) {
    T value;
    std::memcpy(&value, data, sizeof value);
    return value;
  }

  using Plane = std::array<int64_t, 256>;
  DType type_;
  bool two_bytes_;
  std::optional<Exponent> exponent_;
  std::vector<int64_t> symbols_, exponents_;  // exponents_: where they do not follow from the symbols
  std::vector<Plane> planes_;                 // of the bytes of wider elements, instead of symbols
};

}  // namespace

TensorStatistics tensor_statistics(const Tensor& tensor) {
  const DType type = tensor.dtype();
  const int64_t n = tensor.elements(), pieces = (n + kPiece - 1) / kPiece;
  std::vector<Moments> moments(static_cast<size_t>(pieces));
  std::vector<Codes> codes(static_cast<size_t>(std::max(1, num_threads())), Codes(type));
  parallel_items(pieces, [&](int64_t piece, int thread) {
    stop_if_interrupted();
    const int64_t first = piece * kPiece, count = std::min(kPiece, n - first);
    const std::byte* data = tensor.raw() + dtype_bytes(type, static_cast<uint64_t>(first));
    codes[static_cast<size_t>(thread)].count(data, dtype_bytes(type, static_cast<uint64_t>(count)));
    if (!has_values(type)) return;
    thread_local std::vector<float> values(static_cast<size_t>(kPiece));
    values_of(tensor, first, count, values.data());
    moments[static_cast<size_t>(piece)] = moments_of(values.data(), count);
  });
  Moments all;
  for (const auto& piece : moments) all.join(piece);
  for (size_t i = 1; i < codes.size(); ++i) codes[0].join(codes[i]);

  TensorStatistics result;
  result.elements = n;
  result.zeros = all.zeros;
  result.nans = all.nans;
  result.infinities = all.infinities;
  if (all.finite > 0) {
    const auto count = static_cast<double>(all.finite);
    result.minimum = all.minimum;
    result.maximum = all.maximum;
    result.mean = all.mean;
    result.deviation = std::sqrt(all.m2 / count);
    result.kurtosis = all.m2 > 0 ? count * all.m4 / (all.m2 * all.m2) : 0;
  }
  codes[0].describe(result);
  return result;
}

double TensorStatistics::entropy_share() const {
  if (plane_entropy.empty()) return entropy / symbol_bits;
  double bits = 0;
  for (const double plane : plane_entropy) bits += plane;
  return bits / (8.0 * static_cast<double>(plane_entropy.size()));
}

ChannelSizes channel_sizes(const Tensor& tensor) {
  if (tensor.shape().rank() < 2 || !has_values(tensor.dtype())) return {};
  const int64_t rows = tensor.rows(), columns = tensor.cols();
  if (columns % traits(tensor.dtype()).block_length != 0) return {};  // blocks that reach into the next row
  ChannelSizes result{std::vector<double>(static_cast<size_t>(rows)),
                      std::vector<double>(static_cast<size_t>(columns))};
  if (rows == 0 || columns == 0) return result;
  // A fixed number of ranges, added in order: the same bits for any number of threads.
  const int64_t ranges = std::min<int64_t>(rows, 16);
  std::vector<std::vector<double>> sums(static_cast<size_t>(ranges));
  parallel_items(ranges, [&](int64_t range, int) {
    std::vector<double>& own = sums[static_cast<size_t>(range)];
    own.resize(static_cast<size_t>(columns));
    std::vector<float> values(static_cast<size_t>(columns));
    for (int64_t row = rows * range / ranges; row < rows * (range + 1) / ranges; ++row) {
      if (row % 64 == 0) stop_if_interrupted();
      values_of(tensor, row * columns, columns, values.data());
      double sum = 0;
      for (size_t c = 0; c < values.size(); ++c) {
        const double x = std::isfinite(values[c]) ? values[c] : 0;
        own[c] += x * x;
        sum += x * x;
      }
      result.rows[static_cast<size_t>(row)] = std::sqrt(sum / static_cast<double>(columns));
    }
  });
  for (const auto& own : sums) {
    for (size_t c = 0; c < own.size(); ++c) result.columns[c] += own[c];
  }
  for (double& column : result.columns) column = std::sqrt(column / static_cast<double>(rows));
  return result;
}

ChannelOutliers channel_outliers(const std::vector<double>& sizes) {
  ChannelOutliers result;
  result.channels = static_cast<int64_t>(sizes.size());
  if (sizes.empty()) return result;
  const auto median = [](std::vector<double> values) {
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
  };
  result.median = median(sizes);
  std::vector<double> distances = sizes;
  for (double& distance : distances) distance = std::abs(distance - result.median);
  constexpr double kNormal =
      1.4826;  // the standard deviation of a normal distribution of that median distance
  const double limit = std::max(2 * result.median, result.median + 6 * kNormal * median(distances));
  std::vector<ChannelOutliers::Channel> found;
  for (size_t i = 0; i < sizes.size(); ++i) {
    result.zero += sizes[i] == 0 ? 1 : 0;
    if (sizes[i] > limit) found.push_back({static_cast<int64_t>(i), sizes[i]});
  }
  result.outliers = static_cast<int64_t>(found.size());
  std::stable_sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.size > b.size; });
  found.resize(std::min(found.size(), kOutliersNamed));
  result.largest = std::move(found);
  return result;
}

std::vector<int64_t> tensor_histogram(const Tensor& tensor, double minimum, double maximum, int bins) {
  require(bins > 0 && minimum <= maximum,
          "histogram: expected bins between two values, found {} from {} to {}", bins, minimum, maximum);
  std::vector<std::vector<int64_t>> counts(static_cast<size_t>(std::max(1, num_threads())),
                                           std::vector<int64_t>(static_cast<size_t>(bins)));
  if (!has_values(tensor.dtype())) return counts[0];
  const int64_t n = tensor.elements();
  const double scale = maximum > minimum ? bins / (maximum - minimum) : 0;
  parallel_items((n + kPiece - 1) / kPiece, [&](int64_t piece, int thread) {
    stop_if_interrupted();
    const int64_t first = piece * kPiece, count = std::min(kPiece, n - first);
    thread_local std::vector<float> values(static_cast<size_t>(kPiece));
    values_of(tensor, first, count, values.data());
    auto& own = counts[static_cast<size_t>(thread)];
    for (int64_t i = 0; i < count; ++i) {
      const double x = values[static_cast<size_t>(i)];
      if (!(x >= minimum && x <= maximum)) continue;
      ++own[static_cast<size_t>(std::min<int64_t>(bins - 1, static_cast<int64_t>((x - minimum) * scale)))];
    }
  });
  for (size_t i = 1; i < counts.size(); ++i) {
    for (size_t bin = 0; bin < counts[0].size(); ++bin) counts[0][bin] += counts[i][bin];
  }
  return counts[0];
}

}  // namespace qkv
