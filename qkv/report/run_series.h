// Columns, medians and units shared by the pages about training runs.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "qkv/report/chart.h"
#include "qkv/report/training_report.h"

namespace qkv {

// One member of every record, as numbers.
template <typename Record, typename Member>
std::vector<double> column(const std::vector<Record>& records, Member Record::*member) {
  std::vector<double> out;
  out.reserve(records.size());
  for (const auto& record : records) out.push_back(static_cast<double>(record.*member));
  return out;
}

inline std::vector<double> finite(const std::vector<double>& values) {
  std::vector<double> out;
  std::copy_if(values.begin(), values.end(), std::back_inserter(out),
               [](double v) { return std::isfinite(v); });
  return out;
}

// kUnknown when no value is finite.
inline double largest(const std::vector<double>& values) {
  const auto known = finite(values);
  return known.empty() ? kUnknown : *std::max_element(known.begin(), known.end());
}

inline double smallest(const std::vector<double>& values) {
  const auto known = finite(values);
  return known.empty() ? kUnknown : *std::min_element(known.begin(), known.end());
}

inline double last_known(const std::vector<double>& values) {
  const auto known = finite(values);
  return known.empty() ? kUnknown : known.back();
}

inline double median(const std::vector<double>& values) {
  auto known = finite(values);
  if (known.empty()) return kUnknown;
  const auto middle = known.begin() + static_cast<std::ptrdiff_t>(known.size() / 2);
  std::nth_element(known.begin(), middle, known.end());
  if (known.size() % 2 == 1) return *middle;
  return (*std::max_element(known.begin(), middle) + *middle) / 2;
}

// Over how many of `n` noisy values a curve is smoothed; below 3, it is not.
inline double smoothing_span(size_t n) {
  return static_cast<double>(n) / 80;
}

inline std::vector<double> smoothed_for_display(const std::vector<double>& values) {
  const double span = smoothing_span(values.size());
  return span < 3 ? values : smoothed(values, span);
}

// A unit that suits the largest value, and what one of it is.
struct Unit {
  std::string name;
  double size = 1;
};

inline Unit time_unit(double seconds) {
  return seconds >= 3 * 3600 ? Unit{"h", 3600} : seconds >= 300 ? Unit{"min", 60} : Unit{"s", 1};
}

inline Unit byte_unit(double bytes) {
  return bytes >= 1e9 ? Unit{"GiB", 1024.0 * 1024 * 1024} : Unit{"MiB", 1024.0 * 1024};
}

inline std::vector<double> in_unit(std::vector<double> values, const Unit& unit) {
  for (double& value : values) value /= unit.size;
  return values;
}

// Positive values that span so much that a linear axis would hide the small ones.
inline bool wants_log(const std::vector<double>& values) {
  return smallest(values) > 0 && largest(values) > 30 * smallest(values);
}

// The evaluation with the lowest loss, or null.
inline const EvalPoint* best_eval(const TrainingReport& report) {
  const EvalPoint* best = nullptr;
  for (const auto& point : report.eval) {
    if (std::isfinite(point.loss) && (best == nullptr || point.loss < best->loss)) best = &point;
  }
  return best;
}

inline int64_t last_step(const TrainingReport& report) {
  return std::max(report.train.empty() ? 0 : report.train.back().step,
                  report.eval.empty() ? 0 : report.eval.back().step);
}

inline int64_t last_tokens(const TrainingReport& report) {
  return std::max(report.train.empty() ? 0 : report.train.back().tokens,
                  report.eval.empty() ? 0 : report.eval.back().tokens);
}

}  // namespace qkv
