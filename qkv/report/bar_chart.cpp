// Bar charts and histograms.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "qkv/core/error.h"
#include "qkv/report/figure.h"
#include "qkv/report/markup.h"

namespace qkv {
namespace {

constexpr double kBar = 18;
constexpr size_t kTableRows = 200;

std::string with_unit(const Axis& axis, double value) {
  return format_number(value) + (axis.unit.empty() ? "" : " " + axis.unit);
}

// Longer labels are cut with an ellipsis; the bar's hint and the table hold the whole.
std::string shortened(std::string_view label, size_t longest) {
  std::string out;
  size_t characters = 0;
  for (const char c : label) {
    if ((static_cast<unsigned char>(c) & 0xC0) != 0x80 && ++characters > longest) return out + "…";
    out += c;
  }
  return out;
}

}  // namespace

std::string render(const BarChart& chart, std::string_view id) {
  Figure figure(id, chart.title, chart.note, chart.width);
  std::vector<const std::vector<double>*> lists;
  int64_t undrawn = 0;
  for (const auto& group : chart.groups) {
    require(group.values.size() == chart.categories.size(),
            "[report] chart '{}': group '{}': expected {} values, one per category, found {}", chart.title,
            group.name, chart.categories.size(), group.values.size());
    lists.push_back(&group.values);
    undrawn +=
        std::count_if(group.values.begin(), group.values.end(), [](double v) { return !drawable(v, false); });
  }
  Axis axis = chart.value;
  axis.log = false;
  axis.from_zero = true;

  const size_t longest_label = chart.width == ChartWidth::full ? 40 : 22;
  double left = 40, value_width = 0;
  for (const auto& category : chart.categories)
    left = std::max(left, label_width(shortened(category, longest_label)) + 12);
  for (const auto* values : lists) {
    for (const double value : *values) value_width = std::max(value_width, label_width(format_number(value)));
  }
  const double group_height = kBar * static_cast<double>(std::max<size_t>(1, chart.groups.size()));
  const double pitch = group_height + 12;
  const double top = 8, right = figure.width() - value_width - 16;
  const double bottom = top + std::max(pitch * static_cast<double>(chart.categories.size()), 60.0);
  const double height = bottom + 42;
  const Scale x(lists, axis, left, right, chart.width == ChartWidth::full ? 8 : 4, true);

  if (chart.categories.empty() || chart.groups.empty()) {
    figure.text(figure.width() / 2, (top + bottom) / 2, "empty middle", "no data");
    figure.describe("No data.");
    return figure.html(height);
  }
  figure.describe("Bar chart.");
  draw_bottom_axis(figure, x, top, bottom, true);
  for (size_t c = 0; c < chart.categories.size(); ++c) {
    const double y = top + pitch * static_cast<double>(c) + 6;
    figure.text(left - 10, y + group_height / 2 + 4, "label end",
                shortened(chart.categories[c], longest_label));
    for (size_t g = 0; g < chart.groups.size(); ++g) {
      const double value = chart.groups[g].values[c];
      if (!drawable(value, false)) continue;
      const double begin = std::min(x(0), x(value)), end = std::max(x(0), x(value));
      const double bar_top = y + kBar * static_cast<double>(g);
      const std::string name = chart.groups.size() > 1 ? chart.groups[g].name + ", " : "";
      figure.rect(begin, bar_top + 1, std::max(end - begin, 1.0), kBar - 2,
                  "bar " + colour_class(static_cast<int>(g)),
                  fmt::format("{}{}: {}", name, chart.categories[c], with_unit(axis, value)));
      figure.text(end + 6, bar_top + kBar / 2 + 4, "tick", format_number(value));
      figure.describe(fmt::format("{}{}: {}.", name, chart.categories[c], with_unit(axis, value)));
    }
  }
  figure.line(x(0), top, x(0), bottom, "axis");
  figure.text(right, height - 4, "tick end", axis_title(axis));
  figure.count_undrawn(undrawn, false);

  std::vector<std::string> heads = {""};
  std::vector<std::vector<std::string>> rows;
  for (size_t g = 0; g < chart.groups.size(); ++g) {
    heads.push_back(chart.groups[g].name);
    if (chart.groups.size() > 1)
      figure.legend(chart.groups[g].name, colour_class(static_cast<int>(g)), false, false);
  }
  for (size_t c = 0; c < chart.categories.size(); ++c) {
    rows.push_back({chart.categories[c]});
    for (const auto& group : chart.groups) rows.back().push_back(format_number(group.values[c], 6));
  }
  figure.table(heads, rows);
  return figure.html(height);
}

std::string render(const Histogram& chart, std::string_view id) {
  require(chart.edges.size() == chart.counts.size() + 1 || (chart.edges.empty() && chart.counts.empty()),
          "[report] chart '{}': expected one more edge than counts, found {} edges and {} counts",
          chart.title, chart.edges.size(), chart.counts.size());
  for (size_t i = 0; i < chart.edges.size(); ++i) {
    require(std::isfinite(chart.edges[i]) && (i == 0 || chart.edges[i - 1] < chart.edges[i]),
            "[report] chart '{}': expected ascending finite edges, found {} at position {}", chart.title,
            chart.edges[i], i);
  }
  Figure figure(id, chart.title, chart.note, chart.width);
  const bool full = chart.width == ChartWidth::full;
  const double height = full ? 320 : 250;
  Axis count = chart.count;
  count.from_zero = true;
  const double top = 26, bottom = height - 42, right = figure.width() - 14;
  const Scale y({&chart.counts}, count, bottom, top, 5, true);
  double left = 30;
  for (const auto& label : y.labels()) left = std::max(left, label_width(label) + 10);
  const Scale x({&chart.edges}, chart.value, left, right, full ? 9 : 5, false);
  figure.text(0, 11, "tick", axis_title(count));
  figure.text(right, height - 4, "tick end", axis_title(chart.value));
  if (chart.counts.empty()) {
    figure.text((left + right) / 2, (top + bottom) / 2, "empty middle", "no data");
    figure.describe("No data.");
    return figure.html(height);
  }
  draw_left_axis(figure, y, left, right);
  draw_bottom_axis(figure, x, top, bottom, false);
  double total = 0;
  size_t fullest = 0;
  std::vector<std::vector<std::string>> rows;
  for (size_t i = 0; i < chart.counts.size(); ++i) {
    const std::string range =
        fmt::format("{} to {}", format_number(chart.edges[i]), with_unit(chart.value, chart.edges[i + 1]));
    if (rows.size() < kTableRows) rows.push_back({range, format_number(chart.counts[i])});
    if (!drawable(chart.counts[i], y.log()) || !drawable(chart.edges[i], x.log())) continue;
    total += chart.counts[i];
    if (!(chart.counts[i] <= chart.counts[fullest])) fullest = i;
    const double begin = x(chart.edges[i]), end = x(chart.edges[i + 1]), high = y(chart.counts[i]);
    const double gap = end - begin > 4 ? 1 : 0;
    figure.rect(begin, high, std::max(end - begin - gap, 0.5), bottom - high, "bar s0",
                fmt::format("{}: {}", range, format_number(chart.counts[i])));
  }
  figure.line(left, bottom, right, bottom, "axis");
  figure.describe(fmt::format("Histogram of {} values; the fullest bin is {} to {} with {}.",
                              format_number(total), format_number(chart.edges[fullest]),
                              with_unit(chart.value, chart.edges[fullest + 1]),
                              format_number(chart.counts[fullest])));
  figure.table({axis_title(chart.value), axis_title(count)}, rows,
               chart.counts.size() > kTableRows
                   ? fmt::format("The first {} of {} bins.", kTableRows, chart.counts.size())
                   : "");
  return figure.html(height);
}

Histogram make_histogram(std::string title, Axis axis, const std::vector<double>& values, int bins) {
  require(bins >= 1, "[report] histogram '{}': expected at least 1 bin, found {}", title, bins);
  Histogram out;
  out.title = std::move(title);
  int64_t left_out =
      std::count_if(values.begin(), values.end(), [&](double v) { return !drawable(v, axis.log); });
  if (left_out < static_cast<int64_t>(values.size())) {
    const Scale scale({&values}, axis, 0, 1, 5, false);
    for (int i = 0; i <= bins; ++i) {
      const double part = static_cast<double>(i) / bins;
      out.edges.push_back(i == bins     ? scale.max()
                          : scale.log() ? scale.min() * std::pow(scale.max() / scale.min(), part)
                                        : scale.min() + part * (scale.max() - scale.min()));
    }
    out.counts.assign(static_cast<size_t>(bins), 0);
    for (const double value : values) {
      if (!drawable(value, scale.log())) continue;
      if (value < scale.min() || value > scale.max()) {
        ++left_out;
        continue;
      }
      ++out.counts[std::min(static_cast<size_t>(scale(value) * bins), static_cast<size_t>(bins - 1))];
    }
  }
  if (left_out > 0)
    out.note = fmt::format("{} of {} values have no place on this axis.", left_out, values.size());
  out.value = std::move(axis);
  return out;
}

}  // namespace qkv
