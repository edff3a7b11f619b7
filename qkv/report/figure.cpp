#include "qkv/report/figure.h"

#include <fmt/format.h>

#include <algorithm>

#include "qkv/report/markup.h"

namespace qkv {

Figure::Figure(std::string_view id, std::string title, std::string note, ChartWidth width)
    : id_(id), title_(std::move(title)), note_(std::move(note)), width_(pixels(width)) {}

void Figure::text(double x, double y, std::string_view classes, std::string_view content) {
  svg_ += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" class=\"{}\">{}</text>\n", x, y, classes,
                      escape_html(content));
}

void Figure::line(double x1, double y1, double x2, double y2, std::string_view classes) {
  svg_ += fmt::format("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" class=\"{}\"/>\n", x1,
                      y1, x2, y2, classes);
}

void Figure::rect(double x, double y, double width, double height, std::string_view classes,
                  std::string_view hint) {
  svg_ += fmt::format(
      "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" class=\"{}\">"
      "<title>{}</title></rect>\n",
      x, y, width, height, classes, escape_html(hint));
}

void Figure::legend(std::string_view name, std::string_view classes, bool line, bool toggles) {
  const std::string swatch =
      fmt::format("<svg width=\"18\" height=\"10\" aria-hidden=\"true\" class=\"{}\">{}</svg>", classes,
                  line ? "<path d=\"M1 5H17\" class=\"line\"/>"
                       : "<rect x=\"4\" width=\"10\" height=\"10\" rx=\"2\" class=\"bar\"/>");
  legend_ += toggles ? fmt::format(
                           "<button type=\"button\" aria-pressed=\"true\" data-series=\"{}\">{}{}</button>\n",
                           series_, swatch, escape_html(name))
                     : fmt::format("<span>{}{}</span>\n", swatch, escape_html(name));
  ++series_;
}

void Figure::count_undrawn(int64_t n, bool log) {
  if (n <= 0) return;
  remark_ = fmt::format("{} {} not finite{} {} left out.", n, n == 1 ? "value that is" : "values that are",
                        log ? " or not positive" : "", n == 1 ? "is" : "are");
  describe(remark_);
}

void Figure::table(const std::vector<std::string>& heads, const std::vector<std::vector<std::string>>& rows,
                   std::string_view remark) {
  table_ = "<details><summary>Data</summary>\n";
  if (!remark.empty()) table_ += fmt::format("<p class=\"note\">{}</p>\n", escape_html(remark));
  table_ += "<div class=\"scroll\"><table>\n<thead><tr>";
  for (size_t i = 0; i < heads.size(); ++i) {
    table_ +=
        fmt::format("<th scope=\"col\"{}>{}</th>", i == 0 ? "" : " class=\"number\"", escape_html(heads[i]));
  }
  table_ += "</tr></thead>\n<tbody>\n";
  for (const auto& row : rows) {
    table_ += "<tr>";
    for (size_t i = 0; i < row.size(); ++i) {
      table_ += i == 0 ? fmt::format("<th scope=\"row\">{}</th>", escape_html(row[i]))
                       : fmt::format("<td class=\"number\">{}</td>", escape_html(row[i]));
    }
    table_ += "</tr>\n";
  }
  table_ += "</tbody></table></div></details>\n";
}

std::string Figure::html(double height) const {
  std::string out = fmt::format("<figure class=\"chart{}\"{}>\n", width_ < kFullWidth ? " half" : "",
                                data_.empty() ? "" : fmt::format(" data-chart=\"{}\"", escape_html(data_)));
  out += fmt::format("<figcaption><h3>{}</h3>", escape_html(title_));
  if (!note_.empty()) out += fmt::format("<p class=\"note\">{}</p>", escape_html(note_));
  out += "</figcaption>\n";
  if (!legend_.empty()) out += "<div class=\"legend\">" + legend_ + "</div>\n";
  out += fmt::format(
      "<div class=\"plot\"><svg viewBox=\"0 0 {:.0f} {:.0f}\" width=\"{:.0f}\" height=\"{:.0f}\" "
      "role=\"img\" "
      "aria-labelledby=\"{}-title {}-desc\">\n<title id=\"{}-title\">{}</title>\n<desc "
      "id=\"{}-desc\">{}</desc>\n",
      width_, height, width_, height, id_, id_, id_, escape_html(title_), id_, escape_html(description_));
  out += svg_ + "</svg></div>\n";
  if (!remark_.empty()) out += fmt::format("<p class=\"note\">{}</p>\n", escape_html(remark_));
  return out + table_ + "</figure>\n";
}

std::string axis_title(const Axis& axis) {
  if (axis.unit.empty()) return axis.label;
  return axis.label.empty() ? axis.unit : fmt::format("{} ({})", axis.label, axis.unit);
}

double label_width(std::string_view text) {
  double characters = 0;
  for (const char c : text) characters += (static_cast<unsigned char>(c) & 0xC0) != 0x80 ? 1 : 0;
  return characters * 7.4;
}

std::string colour_class(int colour) {
  return fmt::format("s{}{}", colour % kPalette, colour / kPalette % 2 == 1 ? " alt" : "");
}

void draw_left_axis(Figure& figure, const Scale& scale, double left, double right) {
  for (size_t i = 0; i < scale.ticks().size(); ++i) {
    const double y = scale(scale.ticks()[i]);
    figure.line(left, y, right, y, "grid");
    figure.text(left - 8, y + 4, "tick end", scale.labels()[i]);
  }
}

void draw_bottom_axis(Figure& figure, const Scale& scale, double top, double bottom, bool grid) {
  double free_from = -1e9;
  for (size_t i = 0; i < scale.ticks().size(); ++i) {
    const double x = scale(scale.ticks()[i]);
    const double half = label_width(scale.labels()[i]) / 2;
    if (grid) {
      figure.line(x, top, x, bottom, "grid");
    } else {
      figure.line(x, bottom, x, bottom + 4, "axis");
    }
    const double middle = std::min(x, figure.width() - half);
    if (middle - half < free_from) continue;
    figure.text(middle, bottom + 18, "tick middle", scale.labels()[i]);
    free_from = middle + half + 6;
  }
}

}  // namespace qkv
