#include "qkv/report/axis.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "qkv/core/error.h"
#include "qkv/report/markup.h"

namespace qkv {
namespace {

// Beyond this, differences overflow; nothing a run measures comes near.
constexpr double kLargest = 1e300;
// A range narrower than this part of its values cannot be labelled in double precision.
constexpr double kNarrowest = 1e-10;

double nice_step(double range, int target) {
  const double raw = range / std::max(target, 1);
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  const double fraction = raw / power;
  return power * (fraction < 1.5 ? 1 : fraction < 3.5 ? 2 : fraction < 7.5 ? 5 : 10);
}

// i * step, computed so that 3 * 0.1 is 0.3: steps below one divide by their whole inverse.
double multiple(int64_t i, double step) {
  const double inverse = std::round(1 / step);
  return step < 1 && std::abs(inverse * step - 1) < 1e-9 ? static_cast<double>(i) / inverse
                                                         : static_cast<double>(i) * step;
}

std::vector<double> multiples_inside(double min, double max, double step) {
  std::vector<double> ticks;
  if (!(step > 0)) return ticks;
  const auto first = static_cast<int64_t>(std::ceil(min / step - 1e-9));
  const auto last = static_cast<int64_t>(std::floor(max / step + 1e-9));
  for (int64_t i = first; i <= last; ++i) ticks.push_back(multiple(i, step));
  return ticks;
}

// How many decimals write `step` exactly.
int decimals_of(double step) {
  for (int decimals = 0; decimals < 15; ++decimals) {
    const double shifted = step * std::pow(10.0, decimals);
    if (std::abs(shifted - std::round(shifted)) < 1e-6 * shifted) return decimals;
  }
  return 15;
}

double smallest_gap(const std::vector<double>& ticks) {
  double gap = std::numeric_limits<double>::infinity();
  for (size_t i = 1; i < ticks.size(); ++i) gap = std::min(gap, ticks[i] - ticks[i - 1]);
  return std::isfinite(gap) && gap > 0 ? gap : std::max(std::abs(ticks.front()), 1e-300);
}

std::string log_label(double tick) {
  if (tick >= 1e-3 && tick < 1e4) return format_number(tick);
  return tick >= 1e4 && tick < 1e15 ? format_count(tick) : format_number(tick);
}

}  // namespace

bool drawable(double value, bool log) {
  return std::isfinite(value) && std::abs(value) <= kLargest && (!log || value >= 1 / kLargest);
}

std::vector<double> linear_ticks(double min, double max, int target) {
  if (!drawable(min, false) || !drawable(max, false) || !(min < max)) return {};
  if (max - min < kNarrowest * std::max(std::abs(min), std::abs(max))) return {};
  return multiples_inside(min, max, nice_step(max - min, target));
}

std::vector<double> log_ticks(double min, double max, int target) {
  std::vector<double> ticks;
  if (!drawable(min, true) || !drawable(max, true) || !(min < max)) return ticks;
  const auto first = static_cast<int>(std::floor(std::log10(min)));
  const auto last = static_cast<int>(std::ceil(std::log10(max)));
  const auto inside = [&](double value) { return value >= min * (1 - 1e-9) && value <= max * (1 + 1e-9); };
  const int decades = last - first;
  const int stride = std::max(1, (decades + target) / std::max(target, 1));
  const bool dense = decades <= std::max(2, target / 2);
  for (int power = first; power <= last; ++power) {
    if (power % stride != 0) continue;
    for (const double factor : {1.0, 2.0, 5.0}) {
      const double tick = power < 0 ? factor / std::pow(10.0, -power) : factor * std::pow(10.0, power);
      if ((factor == 1.0 || dense) && inside(tick)) ticks.push_back(tick);
    }
  }
  return ticks.size() >= 3 || max / min > 10 ? ticks : linear_ticks(min, max, target);
}

std::vector<std::string> tick_labels(const std::vector<double>& ticks, bool log) {
  std::vector<std::string> labels;
  if (ticks.empty()) return labels;
  const double largest = std::max(std::abs(ticks.front()), std::abs(ticks.back()));
  if (log && ticks.size() > 1 && ticks.front() > 0 && ticks.back() / ticks.front() > 3) {
    for (const double tick : ticks) labels.push_back(log_label(tick));
    return labels;
  }
  const double step = smallest_gap(ticks);
  if (largest >= 1e15 || (largest < 1e-2 && largest > 0)) {
    const int exponent_span =
        static_cast<int>(std::floor(std::log10(largest)) - std::floor(std::log10(step) + 1e-9));
    for (const double tick : ticks) {
      if (tick == 0) {
        labels.push_back("0");
        continue;
      }
      // A tick smaller than the largest needs as many decimals fewer as its exponent is lower.
      const int lower =
          static_cast<int>(std::floor(std::log10(largest)) - std::floor(std::log10(std::abs(tick)) + 1e-9));
      labels.push_back(format_scientific(tick, std::clamp(exponent_span - lower, 0, 15)));
    }
    return labels;
  }
  constexpr const char* suffixes[] = {"", "k", "M", "B", "T"};
  int suffix = 0;
  double unit = 1;
  while (largest >= 1e4 && suffix < 4 && largest / unit >= 1e3) {
    unit *= 1e3;
    ++suffix;
  }
  const int decimals = decimals_of(step / unit);
  for (const double tick : ticks) {
    if (tick == 0) {
      labels.push_back(decimals == 0 || unit > 1 ? "0" : fmt::format("{:.{}f}", 0.0, decimals));
      continue;
    }
    const std::string digits = fmt::format("{:.{}f}", std::abs(tick) / unit, decimals);
    labels.push_back(decimals == 0 && suffix == 0 ? format_number(std::round(tick))
                                                  : (tick < 0 ? "\u2212" : "") + digits + suffixes[suffix]);
  }
  return labels;
}

Scale::Scale(const std::vector<const std::vector<double>*>& values, const Axis& axis, double begin,
             double end, int target, bool round_out)
    : begin_(begin), end_(end), log_(axis.log) {
  const auto cover = [&] {
    double low = std::numeric_limits<double>::infinity(), high = -low;
    for (const auto* list : values) {
      for (const double value : *list) {
        if (!drawable(value, log_)) continue;
        low = std::min(low, value);
        high = std::max(high, value);
      }
    }
    for (const auto& bound : {axis.min, axis.max}) {
      if (bound && drawable(*bound, log_) && !(low <= high)) low = high = *bound;
    }
    min_ = low, max_ = high;
    return low <= high;
  };
  bool any = cover();
  if (!any && log_) {
    log_ = false;
    any = cover();
  }
  if (!any) min_ = 0, max_ = 1;
  if (axis.from_zero && !log_) min_ = std::min(min_, 0.0), max_ = std::max(max_, 0.0);
  if (axis.min && drawable(*axis.min, log_)) min_ = *axis.min;
  if (axis.max && drawable(*axis.max, log_)) max_ = *axis.max;
  const double size = std::max(std::abs(min_), std::abs(max_));
  if (!(max_ - min_ > std::max(kNarrowest * size, 1 / kLargest))) {  // one value, or bounds crossed
    const double middle = size < 1e-250 && !log_ ? 0 : min_;
    const double half = middle == 0 ? 0.5 : std::abs(middle) * 0.1;
    min_ = log_ ? middle / 2 : middle - half;
    max_ = log_ ? middle * 2 : middle + half;
  }
  if (log_) {
    if (round_out) {
      const double pad = std::pow(max_ / min_, 0.04);
      if (!axis.min) min_ /= pad;
      if (!axis.max) max_ *= pad;
    }
    ticks_ = log_ticks(min_, max_, target);
  } else {
    const double step = nice_step(max_ - min_, target);
    if (round_out) {
      if (!axis.min) min_ = std::floor(min_ / step + 1e-9) * step;
      if (!axis.max) max_ = std::ceil(max_ / step - 1e-9) * step;
    }
    ticks_ = multiples_inside(min_, max_, step);
  }
  labels_ = tick_labels(ticks_, log_);
}

double Scale::operator()(double value) const {
  const double part = log_ ? std::log(value / min_) / std::log(max_ / min_) : (value - min_) / (max_ - min_);
  return begin_ + part * (end_ - begin_);
}

Points decimate(const std::vector<double>& x, const std::vector<double>& y, size_t max_points, bool log_x,
                bool log_y) {
  require(x.size() == y.size(), "[report] series: expected as many x as y values, found {} and {}", x.size(),
          y.size());
  require(max_points >= 8, "[report] decimate: expected at least 8 points, found {}", max_points);
  Points all;
  for (size_t i = 0; i < x.size(); ++i) {
    if (!drawable(x[i], log_x)) continue;
    all.x.push_back(x[i]);
    all.y.push_back(drawable(y[i], log_y) ? y[i] : std::numeric_limits<double>::quiet_NaN());
  }
  const size_t n = all.x.size();
  if (n <= max_points) return all;

  // First and last, and from each stretch its lowest, its highest and one gap.
  const bool gaps = std::any_of(all.y.begin(), all.y.end(), [](double value) { return std::isnan(value); });
  const size_t stretches = (max_points - 2) / (gaps ? 3 : 2);
  const bool by_x = std::is_sorted(all.x.begin(), all.x.end()) && all.x.front() < all.x.back();
  const auto position = [&](size_t i) {
    if (!by_x) return static_cast<double>(i) / static_cast<double>(n);
    return log_x ? std::log(all.x[i] / all.x.front()) / std::log(all.x.back() / all.x.front())
                 : (all.x[i] - all.x.front()) / (all.x.back() - all.x.front());
  };
  const auto stretch_of = [&](size_t i) {
    return std::min(stretches - 1, static_cast<size_t>(position(i) * static_cast<double>(stretches)));
  };
  Points kept;
  const auto keep = [&](size_t i) {
    kept.x.push_back(all.x[i]);
    kept.y.push_back(all.y[i]);
  };
  keep(0);
  for (size_t begin = 1; begin < n - 1;) {
    const size_t stretch = stretch_of(begin);
    size_t low = n, high = n, gap = n, end = begin;
    for (; end < n - 1 && stretch_of(end) == stretch; ++end) {
      if (std::isnan(all.y[end])) {
        if (gap == n) gap = end;
        continue;
      }
      if (low == n || all.y[end] < all.y[low]) low = end;
      if (high == n || all.y[end] > all.y[high]) high = end;
    }
    std::vector<size_t> chosen;
    for (const size_t i : {low, high, gap}) {
      if (i != n) chosen.push_back(i);
    }
    std::sort(chosen.begin(), chosen.end());
    chosen.erase(std::unique(chosen.begin(), chosen.end()), chosen.end());
    for (const size_t i : chosen) keep(i);
    begin = end;
  }
  keep(n - 1);
  return kept;
}

}  // namespace qkv
