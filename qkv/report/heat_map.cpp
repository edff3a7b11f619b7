#include "qkv/report/heat_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "qkv/core/error.h"
#include "qkv/report/figure.h"
#include "qkv/report/markup.h"

namespace qkv {
namespace {

using Colour = std::array<int, 3>;

Colour between(const Colour& a, const Colour& b, double part) {
  Colour out{};
  for (size_t i = 0; i < 3; ++i) out[i] = static_cast<int>(std::lround(a[i] + (b[i] - a[i]) * part));
  return out;
}

// Three stops: 0, 1/2, 1.
Colour ramp(const std::array<Colour, 3>& stops, double part) {
  return part < 0.5 ? between(stops[0], stops[1], part * 2) : between(stops[1], stops[2], part * 2 - 1);
}

constexpr std::array<Colour, 3> kSequentialLight = {{{240, 244, 249}, {126, 168, 211}, {27, 66, 122}}};
constexpr std::array<Colour, 3> kSequentialDark = {{{32, 39, 48}, {58, 108, 163}, {205, 226, 249}}};
constexpr std::array<Colour, 3> kDivergingLight = {{{178, 82, 40}, {246, 245, 242}, {37, 95, 160}}};
constexpr std::array<Colour, 3> kDivergingDark = {{{235, 146, 103}, {36, 40, 46}, {118, 173, 229}}};

// Text on a cell is dark on light colours and light on dark ones (relative luminance, WCAG 2).
bool is_light(const Colour& colour) {
  double luminance = 0;
  constexpr double weights[] = {0.2126, 0.7152, 0.0722};
  for (size_t i = 0; i < 3; ++i) luminance += weights[i] * std::pow(colour[i] / 255.0, 2.2);
  return luminance > 0.3;
}

// From a value to a class.
class Levels {
 public:
  explicit Levels(const HeatMap& chart) : colours_(chart.colours) {
    for (const double value : chart.values) {
      if (!drawable(value, log())) continue;
      low_ = any_ ? std::min(low_, value) : value;
      high_ = any_ ? std::max(high_, value) : value;
      any_ = true;
    }
    if (colours_ == HeatMap::Colours::diverging) {
      high_ = std::max(std::abs(low_), std::abs(high_));
      low_ = -high_;
    }
  }
  bool log() const { return colours_ == HeatMap::Colours::sequential_log; }
  bool any() const { return any_; }
  double low() const { return low_; }
  double high() const { return high_; }
  std::string class_at(double part) const {
    const bool diverging = colours_ == HeatMap::Colours::diverging;
    const int levels = diverging ? kDivergingLevels : kSequentialLevels;
    return fmt::format("{}{}", diverging ? 'd' : 'q',
                       std::clamp(static_cast<int>(part * levels), 0, levels - 1));
  }
  std::string class_of(double value) const {
    if (!(high_ > low_)) return class_at(0.5);
    return class_at(log() ? std::log(value / low_) / std::log(high_ / low_)
                          : (value - low_) / (high_ - low_));
  }

 private:
  HeatMap::Colours colours_;
  bool any_ = false;
  double low_ = 0, high_ = 0;
};

}  // namespace

std::string heat_style(bool dark) {
  std::string out;
  const auto add = [&](char family, int levels, const std::array<Colour, 3>& stops) {
    for (int i = 0; i < levels; ++i) {
      const Colour colour = ramp(stops, static_cast<double>(i) / (levels - 1));
      out += fmt::format(".{0}{1}{{fill:#{2:02x}{3:02x}{4:02x}}}.{0}{1}+.cell{{fill:{5}}}\n", family, i,
                         colour[0], colour[1], colour[2], is_light(colour) ? "#1d2127" : "#f6f8fa");
    }
  };
  add('q', kSequentialLevels, dark ? kSequentialDark : kSequentialLight);
  add('d', kDivergingLevels, dark ? kDivergingDark : kDivergingLight);
  return out;
}

std::string render(const HeatMap& chart, std::string_view id) {
  require(chart.values.size() == chart.rows.size() * chart.columns.size(),
          "[report] chart '{}': expected {} x {} values, found {}", chart.title, chart.rows.size(),
          chart.columns.size(), chart.values.size());
  Figure figure(id, chart.title, chart.note, chart.width);
  const Levels levels(chart);
  if (chart.values.empty()) {
    figure.text(figure.width() / 2, 40, "empty middle", "no data");
    figure.describe("No data.");
    return figure.html(80);
  }

  const auto columns = static_cast<double>(chart.columns.size()),
             rows = static_cast<double>(chart.rows.size());
  double left = 20, widest_column = 0, widest_value = 0;
  for (const auto& label : chart.rows) left = std::max(left, label_width(label) + 10);
  left = std::min(left, figure.width() / 2);
  for (const auto& label : chart.columns) widest_column = std::max(widest_column, label_width(label));
  for (const double value : chart.values)
    widest_value = std::max(widest_value, label_width(format_number(value, 3)));
  double room = figure.width() - left - 14;
  double cell_width = std::clamp(room / columns, 1.0, 150.0);
  const double cell_height = rows > 60 ? std::max(4.0, 1200 / rows) : 22;
  const bool turned = widest_column + 6 > cell_width;
  if (turned) {  // the last label leans out to the right
    room = std::max(room - widest_column * 0.72, columns);
    cell_width = std::clamp(room / columns, 1.0, 150.0);
  }
  const double top = turned ? 12 + widest_column * 0.72 : 22;
  const bool numbers = widest_value + 4 <= cell_width && cell_height >= 16;
  const double gap = cell_width > 6 && cell_height > 6 ? 1 : 0;

  const auto label_every = [](double pitch, double needed) {
    return static_cast<size_t>(std::ceil(needed / pitch));
  };
  for (size_t c = 0; c < chart.columns.size(); c += label_every(cell_width, turned ? 18 : 1)) {
    const double x = left + (static_cast<double>(c) + 0.5) * cell_width;
    if (turned) {
      figure.draw(
          fmt::format("<text transform=\"translate({:.1f} {:.1f}) rotate(-45)\" class=\"tick\">{}</text>\n",
                      x + 3, top - 7, escape_html(chart.columns[c])));
    } else {
      figure.text(x, top - 7, "tick middle", chart.columns[c]);
    }
  }
  int64_t undrawn = 0;
  size_t low = chart.values.size(), high = low;
  for (size_t r = 0; r < chart.rows.size(); ++r) {
    const double y = top + static_cast<double>(r) * cell_height;
    if (r % label_every(cell_height, 13) == 0) {
      figure.text(left - 8, y + cell_height / 2 + 4, "tick end", chart.rows[r]);
    }
    for (size_t c = 0; c < chart.columns.size(); ++c) {
      const size_t i = r * chart.columns.size() + c;
      const double value = chart.values[i], x = left + static_cast<double>(c) * cell_width;
      const bool shown = drawable(value, levels.log());
      undrawn += shown || std::isnan(value) ? 0 : 1;
      if (shown && (low == chart.values.size() || value < chart.values[low])) low = i;
      if (shown && (high == chart.values.size() || value > chart.values[high])) high = i;
      figure.rect(x, y, cell_width - gap, cell_height - gap, shown ? levels.class_of(value) : "none",
                  fmt::format("{}, {}: {}", chart.rows[r], chart.columns[c],
                              std::isnan(value) ? "no value" : format_number(value, 5)));
      if (numbers && shown) {
        figure.text(x + (cell_width - gap) / 2, y + cell_height / 2 + 4, "cell", format_number(value, 3));
      }
    }
  }

  const double bottom = top + rows * cell_height + 18;
  if (levels.any()) {
    const double length = std::min(220.0, room);
    for (int i = 0; i < kSequentialLevels; ++i) {
      figure.draw(
          fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"8\" class=\"{}\"/>\n",
                      left + length * i / kSequentialLevels, bottom, length / kSequentialLevels + 0.3,
                      levels.class_at((i + 0.5) / kSequentialLevels)));
    }
    figure.text(left, bottom + 23, "tick", format_number(levels.low()));
    figure.text(left + length, bottom + 23, "tick end", format_number(levels.high()));
    figure.text(left + length + 12, bottom + 8, "tick",
                chart.value_label + (levels.log() ? " (logarithmic)" : ""));
    const auto place = [&](size_t i) {
      return fmt::format("{} at {}, {}", format_number(chart.values[i]), chart.rows[i / chart.columns.size()],
                         chart.columns[i % chart.columns.size()]);
    };
    figure.describe(fmt::format("Heat map of {} by {} values; lowest {}, highest {}.", chart.rows.size(),
                                chart.columns.size(), place(low), place(high)));
  }
  figure.count_undrawn(undrawn, levels.log());

  std::vector<std::string> heads = {""};
  heads.insert(heads.end(), chart.columns.begin(), chart.columns.end());
  std::vector<std::vector<std::string>> table;
  for (size_t r = 0; r < chart.rows.size(); ++r) {
    table.push_back({chart.rows[r]});
    for (size_t c = 0; c < chart.columns.size(); ++c) {
      const double value = chart.values[r * chart.columns.size() + c];
      table.back().push_back(std::isnan(value) ? "" : format_number(value, 5));
    }
  }
  figure.table(heads, table);
  return figure.html(bottom + 30);
}

}  // namespace qkv
