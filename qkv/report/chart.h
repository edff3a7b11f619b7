// Charts as values, and as self-contained HTML figures: inline SVG that shows without scripts, a title and
// description for screen readers, and the numbers as a table. Values that are not finite are left out and
// counted in a note.
#pragma once

#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "qkv/report/axis.h"

namespace qkv {

// How much of the page's width a chart takes; two `half` charts in a row stand side by side.
enum class ChartWidth { full, half };

struct Series {
  enum class Style { line, faint_line, dashed_line, points, line_and_points };
  std::string name{};
  std::vector<double> x{}, y{};  // equally long
  Style style = Style::line;
  int colour = -1;  // index into the palette of 8; -1: the series' position in the chart
};

// Something that happened at x: a thin vertical line with a label.
struct Marker {
  double x = 0;
  std::string text{};
};

struct LineChart {
  std::string title{};
  std::string note{};  // one line under the title
  Axis x{}, y{};
  std::vector<Series> series{};
  std::vector<Marker> markers{};
  ChartWidth width = ChartWidth::full;
};

// Horizontal bars, grouped by category.
struct BarChart {
  struct Group {
    std::string name{};
    std::vector<double> values{};  // one per category; NaN: no bar
  };
  std::string title{};
  std::string note{};
  Axis value{};  // `log` is not used: a bar's length starts at zero
  std::vector<std::string> categories{};
  std::vector<Group> groups{};
  ChartWidth width = ChartWidth::full;
};

struct Histogram {
  std::string title{};
  std::string note{};
  Axis value{};  // of the edges
  Axis count{.label = "count"};
  std::vector<double> edges{};   // ascending, one more than counts
  std::vector<double> counts{};  // >= 0
  ChartWidth width = ChartWidth::half;
};

// The drawable values of `values` counted in `bins` equally wide bins (equal ratios where `axis.log`).
Histogram make_histogram(std::string title, Axis axis, const std::vector<double>& values, int bins);

struct HeatMap {
  enum class Colours { sequential, sequential_log, diverging };  // diverging: around 0
  std::string title{};
  std::string note{};
  std::string value_label{};
  std::vector<std::string> rows{}, columns{};
  std::vector<double> values{};  // rows x columns, row-major; NaN: an empty cell
  Colours colours = Colours::sequential;
  ChartWidth width = ChartWidth::full;
};

// Each returns a <figure>. `id` is unique in the page and made of letters, digits and '-'.
// Throws Error naming the chart if its parts disagree in length.
std::string render(const LineChart& chart, std::string_view id);
std::string render(const BarChart& chart, std::string_view id);
std::string render(const Histogram& chart, std::string_view id);
std::string render(const HeatMap& chart, std::string_view id);

// Exponential moving average over about `span` (>= 1) values on either side, so that it neither lags behind
// nor starts or ends biased (the last value is the usual, start-corrected average of what came before).
// Values that are not finite are passed through and do not count.
std::vector<double> smoothed(const std::vector<double>& values, double span);

}  // namespace qkv
