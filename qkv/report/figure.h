// What all charts share: the <figure> around the SVG, its title and description for screen readers, legend
// and table.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "qkv/report/chart.h"

namespace qkv {

// Widths of the drawing in CSS pixels; the style sheet's figures have exactly this much room inside on a wide
// screen.
constexpr double kFullWidth = 1038;
constexpr double kHalfWidth = 488;
constexpr int kPalette = 8;

inline double pixels(ChartWidth width) {
  return width == ChartWidth::full ? kFullWidth : kHalfWidth;
}

class Figure {
 public:
  Figure(std::string_view id, std::string title, std::string note, ChartWidth width);

  // Appends to the drawing.
  void draw(std::string_view svg) { svg_ += svg; }
  void text(double x, double y, std::string_view classes, std::string_view content);
  void line(double x1, double y1, double x2, double y2, std::string_view classes);
  void rect(double x, double y, double width, double height, std::string_view classes, std::string_view hint);

  // One legend entry; `toggles` makes it a button for the series of that index.
  void legend(std::string_view name, std::string_view classes, bool line, bool toggles);
  // What the drawing shows, in words.
  void describe(std::string_view sentence) {
    description_ += (description_.empty() ? "" : " ") + std::string(sentence);
  }
  // "n values that are not finite ... are not drawn", if n > 0.
  void count_undrawn(int64_t n, bool log);
  // JSON the script reads to follow the pointer.
  void data(std::string json) { data_ = std::move(json); }
  // The numbers; cells of the first column are row headings.
  void table(const std::vector<std::string>& heads, const std::vector<std::vector<std::string>>& rows,
             std::string_view remark = "");

  // The finished <figure>; `height` is the drawing's, in CSS pixels.
  std::string html(double height) const;
  double width() const { return width_; }
  const std::string& id() const { return id_; }

 private:
  std::string id_, title_, note_, svg_, legend_, description_, remark_, data_, table_;
  double width_;
  int series_ = 0;
};

// "loss (nats)".
std::string axis_title(const Axis& axis);
// Width of `text` in the charts' label size, in CSS pixels (an estimate from above).
double label_width(std::string_view text);
// "s0" ... "s7": the class that gives a series its colour; "alt" is added from the ninth series on.
std::string colour_class(int colour);
// Tick labels and grid lines of a value axis at the left, or at the bottom, of a plot.
void draw_left_axis(Figure& figure, const Scale& scale, double left, double right);
void draw_bottom_axis(Figure& figure, const Scale& scale, double top, double bottom, bool grid);

}  // namespace qkv
