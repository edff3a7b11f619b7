// Axes of charts: which ticks, how they are labelled, where a value lies in pixels, and which points of a
// long series are enough to draw it. Ticks at 1, 2 or 5 times a power of ten: Heckbert, "Nice numbers for
// graph labels" (Graphics Gems, 1990).
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace qkv {

// How a chart's axis is asked for.
struct Axis {
  std::string label{};
  std::string unit{};      // appended to the label in parentheses, and to values under the pointer
  bool log = false;        // values <= 0 are left out; an axis without any positive value is drawn linear
  bool from_zero = false;  // linear axes only: the axis includes 0
  std::optional<double> min{}, max{};
};

// Whether a value has a place on an axis: finite, not absurdly large, and positive where the axis is
// logarithmic.
bool drawable(double value, bool log);

// Multiples of 1, 2 or 5 times a power of ten inside [min, max], about `target` of them (never more than
// twice that). Empty unless min < max, both finite.
std::vector<double> linear_ticks(double min, double max, int target);
// Powers of ten inside [min, max] (with 2 and 5 times them where few), for 0 < min < max; linear ticks when
// the range is less than a decade and holds fewer than three of those.
std::vector<double> log_ticks(double min, double max, int target);
// Labels that share decimals and suffix: {"0", "5k", "10k"}, {"0.0", "0.5", "1.0"}, {"0", "1e-4", "2e-4"}.
std::vector<std::string> tick_labels(const std::vector<double>& ticks, bool log);

// Values to pixels.
class Scale {
 public:
  // Covers every drawable value in `values` (a caller that wants none passes an empty list and gets [0, 1]).
  // `round_out` moves linear ends to the next tick. `begin` and `end` are pixel positions of the axis' low
  // and high end.
  Scale(const std::vector<const std::vector<double>*>& values, const Axis& axis, double begin, double end,
        int target, bool round_out);

  double operator()(double value) const;
  double min() const { return min_; }
  double max() const { return max_; }
  bool log() const { return log_; }
  const std::vector<double>& ticks() const { return ticks_; }
  const std::vector<std::string>& labels() const { return labels_; }
  // The same axis on other pixels.
  void move(double begin, double end) { begin_ = begin, end_ = end; }

 private:
  double min_ = 0, max_ = 1;
  double begin_, end_;
  bool log_;
  std::vector<double> ticks_;
  std::vector<std::string> labels_;
};

struct Points {
  std::vector<double> x{}, y{};
};

// At most `max_points` (>= 8) of the points, in order, that draw the same line: the first, the last, and the
// lowest and highest of each of equally wide stretches of x (of log x where `log_x`; of the index where x
// runs backwards). Values that are not drawable stay as one NaN per stretch, so gaps stay gaps. Points with
// an undrawable x are dropped.
Points decimate(const std::vector<double>& x, const std::vector<double>& y, size_t max_points, bool log_x,
                bool log_y);

}  // namespace qkv
