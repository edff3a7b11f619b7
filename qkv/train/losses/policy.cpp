#include "qkv/train/losses/policy.h"

#include <algorithm>
#include <cmath>

#include "qkv/core/error.h"

namespace qkv::losses {

template <typename T>
Moments moments(std::span<const T> values) {
  Moments result;
  const auto n = static_cast<double>(values.size());
  if (values.empty()) return result;
  for (T value : values) result.mean += static_cast<double>(value) / n;
  if (values.size() < 2) return result;
  for (T value : values) {
    const double distance = static_cast<double>(value) - result.mean;
    result.variance += distance * distance / (n - 1);
  }
  return result;
}

template <typename T>
std::vector<T> whitened(std::span<const T> values, bool keep_mean) {
  const Moments m = moments(values);
  const double scale = 1 / std::sqrt(m.variance + 1e-8);
  std::vector<T> result;
  result.reserve(values.size());
  for (T value : values)
    result.push_back(
        static_cast<T>((static_cast<double>(value) - m.mean) * scale + (keep_mean ? m.mean : 0)));
  return result;
}

template <typename T>
std::vector<T> entropies(std::span<const T> logits, int64_t vocabulary, std::vector<T>* gradient) {
  const auto v = static_cast<size_t>(vocabulary);
  require(v > 0 && logits.size() % v == 0, "entropy: expected rows of {} logits, found {} numbers",
          vocabulary, logits.size());
  std::vector<T> result(logits.size() / v);
  if (gradient != nullptr) gradient->assign(logits.size(), T{0});
  std::vector<T> p(v);
  for (size_t row = 0; row < result.size(); ++row) {
    const auto x = logits.subspan(row * v, v);
    const T top = *std::max_element(x.begin(), x.end());
    T total = 0, mean = 0;
    for (size_t i = 0; i < v; ++i) total += p[i] = std::exp(x[i] - top);
    for (size_t i = 0; i < v; ++i) mean += (p[i] /= total) * x[i];
    result[row] = top + std::log(total) - mean;
    // d H / d x_i = -p_i (log p_i + H) = -p_i (x_i - mean)
    if (gradient != nullptr) {
      for (size_t i = 0; i < v; ++i) (*gradient)[row * v + i] = -p[i] * (x[i] - mean);
    }
  }
  return result;
}

void require_offsets(std::span<const int64_t> offsets, size_t tokens, const char* what) {
  require(offsets.size() > 1 && offsets.front() == 0 && std::is_sorted(offsets.begin(), offsets.end()) &&
              offsets.back() == static_cast<int64_t>(tokens),
          "{}: expected offsets of answers that rise from 0 to {}", what, tokens);
}

template Moments moments(std::span<const float>);
template Moments moments(std::span<const double>);
template std::vector<float> whitened(std::span<const float>, bool);
template std::vector<double> whitened(std::span<const double>, bool);
template std::vector<float> entropies(std::span<const float>, int64_t, std::vector<float>*);
template std::vector<double> entropies(std::span<const double>, int64_t, std::vector<double>*);

}  // namespace qkv::losses
