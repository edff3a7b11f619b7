#include "qkv/train/losses/distillation.h"

#include <algorithm>
#include <cmath>

#include "qkv/core/error.h"

namespace qkv::losses {
namespace {

template <typename T>
void log_softmax(std::span<const T> logits, T temperature, std::vector<T>& out) {
  const T top = *std::max_element(logits.begin(), logits.end());
  T total = 0;
  for (size_t i = 0; i < logits.size(); ++i) total += std::exp(out[i] = (logits[i] - top) / temperature);
  const T log_total = std::log(total);
  for (T& value : out) value -= log_total;
}

}  // namespace

template <typename T>
DistillationLosses<T> distillation(std::span<const T> student, std::span<const T> teacher, int64_t vocabulary,
                                   const DistillationOptions& options) {
  const auto v = static_cast<size_t>(vocabulary);
  require(v > 0 && student.size() % v == 0 && teacher.size() == student.size(),
          "distillation: expected rows of {} logits of both models, found {} and {} numbers", vocabulary,
          student.size(), teacher.size());
  require(options.temperature > 0, "distillation: temperature: expected a positive number, found {}",
          options.temperature);
  require(options.kind != DistillationKind::js || (options.beta > 0 && options.beta < 1),
          "distillation: beta: expected a number between 0 and 1, found {}", options.beta);
  const T temperature = static_cast<T>(options.temperature), b = static_cast<T>(options.beta);
  const T scale = options.scale_by_temperature ? temperature * temperature : T{1};
  DistillationLosses<T> out;
  out.losses.resize(student.size() / v);
  out.gradient.resize(student.size());
  std::vector<T> log_q(v), log_p(v), slope(v);
  for (size_t row = 0; row < out.losses.size(); ++row) {
    log_softmax(student.subspan(row * v, v), temperature, log_q);
    log_softmax(teacher.subspan(row * v, v), temperature, log_p);
    T loss = 0, mean = 0;  // slope: d loss / d q, up to a constant; mean: its mean under q
    for (size_t i = 0; i < v; ++i) {
      const T p = std::exp(log_p[i]), q = std::exp(log_q[i]);
      if (options.kind == DistillationKind::forward) {
        if (p > 0) loss += p * (log_p[i] - log_q[i]);
        continue;
      }
      if (options.kind == DistillationKind::reverse) {
        slope[i] = log_q[i] - log_p[i];
        if (q > 0) loss += q * slope[i];
      } else {
        const T x = log_p[i] + std::log(b), y = log_q[i] + std::log1p(-b), high = std::max(x, y);
        const T log_m = high + std::log1p(std::exp(-std::abs(x - y)));
        slope[i] = (1 - b) * (log_q[i] - log_m);
        loss += (p > 0 ? b * p * (log_p[i] - log_m) : T{0}) + (q > 0 ? q * slope[i] : T{0});
      }
      mean += q > 0 ? q * slope[i] : T{0};
    }
    out.losses[row] = loss * scale;
    for (size_t i = 0; i < v; ++i) {
      const T q = std::exp(log_q[i]);
      const T by_logit = options.kind == DistillationKind::forward ? q - std::exp(log_p[i])
                                                                   : (q > 0 ? q * (slope[i] - mean) : T{0});
      out.gradient[row * v + i] = by_logit * scale / temperature;
    }
  }
  return out;
}

template DistillationLosses<float> distillation(std::span<const float>, std::span<const float>, int64_t,
                                                const DistillationOptions&);
template DistillationLosses<double> distillation(std::span<const double>, std::span<const double>, int64_t,
                                                 const DistillationOptions&);

}  // namespace qkv::losses
