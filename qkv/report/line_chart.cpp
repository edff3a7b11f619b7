// Line charts.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "qkv/core/error.h"
#include "qkv/report/figure.h"
#include "qkv/report/markup.h"

namespace qkv {
namespace {

constexpr size_t kMaximumPoints = 1500;
constexpr size_t kTableRows = 40;

struct Plot {
  double left, top, right, bottom;
};

bool has_line(const Series& series) {
  return series.style != Series::Style::points;
}
bool has_points(const Series& series) {
  return series.style == Series::Style::points || series.style == Series::Style::line_and_points;
}

// The path through the points (one subpath between gaps) and a dot for each point that should be seen on its
// own.
std::string drawing_of(const Series& series, const Points& points, const Scale& x, const Scale& y) {
  std::string path, dots;
  const size_t n = points.x.size();
  const auto finite = [&](size_t i) { return i < n && !std::isnan(points.y[i]); };
  for (size_t i = 0; i < n; ++i) {
    if (!finite(i)) continue;
    const bool starts = i == 0 || !finite(i - 1);
    const double px = x(points.x[i]), py = y(points.y[i]);
    path += fmt::format("{}{:.1f} {:.1f}", starts ? "M" : "L", px, py);
    if (has_points(series) || (starts && !finite(i + 1))) {
      dots += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{}\" class=\"dot\"/>\n", px, py,
                          series.style == Series::Style::faint_line ? 1.5 : 3);
    }
  }
  std::string out;
  if (has_line(series) && !path.empty()) out += fmt::format("<path d=\"{}\" class=\"line\"/>\n", path);
  return out + dots;
}

// A number as JSON; JavaScript's JSON has no NaN.
std::string json_number(double value) {
  return std::isfinite(value) ? fmt::format("{:.8g}", value) : "null";
}

std::string json_numbers(const std::vector<double>& values) {
  std::string out = "[";
  for (size_t i = 0; i < values.size(); ++i) out += (i == 0 ? "" : ",") + json_number(values[i]);
  return out + "]";
}

std::string json_axis(const Axis& axis, const Scale& scale) {
  return fmt::format("{{\"label\":{},\"unit\":{},\"log\":{},\"min\":{:.17g},\"max\":{:.17g}}}",
                     json_string(axis.label), json_string(axis.unit), scale.log(), scale.min(), scale.max());
}

std::string json_chart(const LineChart& chart, const std::vector<Points>& points, const Scale& x,
                       const Scale& y, const Plot& plot) {
  std::string out =
      fmt::format("{{\"x\":{},\"y\":{},\"plot\":[{:.1f},{:.1f},{:.1f},{:.1f}],\"series\":[",
                  json_axis(chart.x, x), json_axis(chart.y, y), plot.left, plot.top, plot.right, plot.bottom);
  for (size_t i = 0; i < points.size(); ++i) {
    out +=
        fmt::format("{}{{\"name\":{},\"x\":{},\"y\":{}}}", i == 0 ? "" : ",",
                    json_string(chart.series[i].name), json_numbers(points[i].x), json_numbers(points[i].y));
  }
  out += "],\"markers\":[";
  bool first = true;
  for (const auto& marker : chart.markers) {
    if (!drawable(marker.x, x.log())) continue;
    out += fmt::format("{}{{\"x\":{},\"text\":{}}}", first ? "" : ",", json_number(marker.x),
                       json_string(marker.text));
    first = false;
  }
  return out + "]}";
}

std::string with_unit(const Axis& axis, double value) {
  return format_number(value) + (axis.unit.empty() ? "" : " " + axis.unit);
}

void describe_series(Figure& figure, const LineChart& chart, const Series& series, const Points& points) {
  size_t low = points.y.size(), high = low, first = low, last = low;
  for (size_t i = 0; i < points.y.size(); ++i) {
    if (std::isnan(points.y[i])) continue;
    if (first == points.y.size()) first = low = high = i;
    last = i;
    if (points.y[i] < points.y[low]) low = i;
    if (points.y[i] > points.y[high]) high = i;
  }
  if (first == points.y.size()) {
    figure.describe(fmt::format("{}: no data.", series.name));
    return;
  }
  figure.describe(fmt::format("{}: from {} to {}; lowest {} and highest {}, at {} {} and {}.", series.name,
                              with_unit(chart.y, points.y[first]), with_unit(chart.y, points.y[last]),
                              format_number(points.y[low]), format_number(points.y[high]), chart.x.label,
                              with_unit(chart.x, points.x[low]), format_number(points.x[high])));
}

// The series at evenly chosen x, each with its latest value there.
void fill_table(Figure& figure, const LineChart& chart, const std::vector<Points>& points) {
  std::vector<double> places;
  for (const auto& series : points) places.insert(places.end(), series.x.begin(), series.x.end());
  std::sort(places.begin(), places.end());
  places.erase(std::unique(places.begin(), places.end()), places.end());
  const bool thinned = places.size() > kTableRows;
  if (thinned) {
    std::vector<double> chosen;
    for (size_t i = 0; i < kTableRows; ++i)
      chosen.push_back(places[i * (places.size() - 1) / (kTableRows - 1)]);
    places = chosen;
  }
  std::vector<std::string> heads = {axis_title(chart.x)};
  for (const auto& series : chart.series) heads.push_back(series.name);
  std::vector<std::vector<std::string>> rows;
  std::vector<std::vector<std::pair<double, double>>> sorted(points.size());
  for (size_t s = 0; s < points.size(); ++s) {
    for (size_t i = 0; i < points[s].x.size(); ++i) sorted[s].push_back({points[s].x[i], points[s].y[i]});
    std::stable_sort(sorted[s].begin(), sorted[s].end(), [](auto& a, auto& b) { return a.first < b.first; });
  }
  for (const double place : places) {
    std::vector<std::string> row = {format_number(place, 6)};
    for (const auto& series : sorted) {
      const auto after =
          std::upper_bound(series.begin(), series.end(), place,
                           [](double value, const auto& point) { return value < point.first; });
      const bool known = after != series.begin() && (thinned || (after - 1)->first == place);
      row.push_back(known ? format_number((after - 1)->second, 5) : "");
    }
    rows.push_back(std::move(row));
  }
  figure.table(
      heads, rows,
      thinned ? fmt::format("{} evenly chosen points; each series' latest value there.", places.size()) : "");
}

// Vertical lines with labels in a row above the plot; a label that would run into its neighbour is left to
// the pointer.
void draw_markers(Figure& figure, const LineChart& chart, const Scale& x, const Plot& plot) {
  std::vector<Marker> markers = chart.markers;
  std::stable_sort(markers.begin(), markers.end(),
                   [](const Marker& a, const Marker& b) { return a.x < b.x; });
  double free_from = plot.left;
  for (const auto& marker : markers) {
    if (!drawable(marker.x, x.log())) continue;
    const double px = x(marker.x);
    if (px < plot.left - 0.5 || px > plot.right + 0.5) continue;
    figure.draw(
        fmt::format("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" class=\"marker\">"
                    "<title>{}</title></line>\n",
                    px, plot.top - 4, px, plot.bottom, escape_html(marker.text)));
    const double half = label_width(marker.text) / 2;
    const double middle = std::clamp(px, std::min(plot.left + half, plot.right - half), plot.right - half);
    if (middle - half < free_from) continue;
    figure.text(middle, plot.top - 9, "tick middle", marker.text);
    free_from = middle + half + 8;
  }
}

}  // namespace

std::string render(const LineChart& chart, std::string_view id) {
  Figure figure(id, chart.title, chart.note, chart.width);
  const bool full = chart.width == ChartWidth::full;
  const double height = full ? 380 : 270;
  std::vector<const std::vector<double>*> xs, ys;
  for (const auto& series : chart.series) {
    require(series.x.size() == series.y.size(),
            "[report] chart '{}': series '{}': expected as many x as y values, found {} and {}", chart.title,
            series.name, series.x.size(), series.y.size());
    xs.push_back(&series.x);
    ys.push_back(&series.y);
  }

  const std::string y_title = axis_title(chart.y);
  const double top = (y_title.empty() ? 10.0 : 26.0) + (chart.markers.empty() ? 0.0 : 16.0);
  Plot plot{0, top, figure.width() - 14, height - 42};
  const Scale y(ys, chart.y, plot.bottom, plot.top, full ? 7 : 5, true);
  double widest = 20;
  for (const auto& label : y.labels()) widest = std::max(widest, label_width(label));
  plot.left = widest + 10;
  const Scale x(xs, chart.x, plot.left, plot.right, full ? 9 : 5, false);

  std::vector<Points> points;
  int64_t undrawn = 0;
  bool any = false;
  for (const auto& series : chart.series) {
    for (size_t i = 0; i < series.x.size(); ++i) {
      const bool shown = drawable(series.x[i], x.log()) && drawable(series.y[i], y.log());
      undrawn += shown ? 0 : 1;
      any = any || shown;
    }
    points.push_back(decimate(series.x, series.y, kMaximumPoints, x.log(), y.log()));
  }

  if (!y_title.empty()) figure.text(0, 11, "tick", y_title);
  figure.text(plot.right, height - 4, "tick end", axis_title(chart.x));
  if (!any) {
    figure.line(plot.left, plot.bottom, plot.right, plot.bottom, "axis");
    figure.text((plot.left + plot.right) / 2, (plot.top + plot.bottom) / 2, "empty middle", "no data");
    figure.describe("No data.");
    figure.count_undrawn(undrawn, chart.y.log || chart.x.log);
    return figure.html(height);
  }
  draw_left_axis(figure, y, plot.left, plot.right);
  draw_bottom_axis(figure, x, plot.top, plot.bottom, false);
  figure.line(plot.left, plot.bottom, plot.right, plot.bottom, "axis");
  draw_markers(figure, chart, x, plot);
  figure.draw(fmt::format(
      "<clipPath id=\"{}-clip\"><rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\"/>"
      "</clipPath>\n<g clip-path=\"url(#{}-clip)\">\n",
      id, plot.left - 4, plot.top - 4, plot.right - plot.left + 8, plot.bottom - plot.top + 8, id));
  figure.describe("Line chart.");
  for (size_t i = 0; i < chart.series.size(); ++i) {
    const auto& series = chart.series[i];
    std::string classes = colour_class(series.colour >= 0 ? series.colour : static_cast<int>(i));
    if (series.style == Series::Style::faint_line) classes += " faint";
    if (series.style == Series::Style::dashed_line) classes += " dashed";
    figure.draw(fmt::format("<g class=\"{}\" data-series=\"{}\">\n{}</g>\n", classes, i,
                            drawing_of(series, points[i], x, y)));
    if (chart.series.size() > 1) figure.legend(series.name, classes, has_line(series), true);
    describe_series(figure, chart, series, points[i]);
  }
  figure.draw("</g>\n");
  figure.count_undrawn(undrawn, x.log() || y.log());
  figure.data(json_chart(chart, points, x, y, plot));
  fill_table(figure, chart, points);
  return figure.html(height);
}

std::vector<double> smoothed(const std::vector<double>& values, double span) {
  require(span >= 1, "[report] smoothed: expected a span of at least 1, found {}", span);
  const double decay = 1 - 2 / (span + 1);
  const size_t n = values.size();
  std::vector<double> sums(n), weights(n);
  double sum = 0, weight = 0;
  const auto sweep = [&](size_t i) {  // what came before i in the sweep, then i itself
    sum *= decay, weight *= decay;
    sums[i] += sum, weights[i] += weight;
    if (std::isfinite(values[i])) sum += values[i], weight += 1;
  };
  for (size_t i = 0; i < n; ++i) sweep(i);
  sum = weight = 0;
  for (size_t i = n; i-- > 0;) sweep(i);
  std::vector<double> out = values;
  for (size_t i = 0; i < n; ++i) {
    if (std::isfinite(values[i])) out[i] = (sums[i] + values[i]) / (weights[i] + 1);
  }
  return out;
}

}  // namespace qkv
