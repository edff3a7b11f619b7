// One self-contained HTML page: key figures, text, tables and charts, added in reading order. It opens from
// disk without a network (its content policy forbids every request), follows the reader's light or dark
// scheme, prints, and shows everything without scripts; the script adds the pointer's read-out, legend
// toggles and table sorting. All text is escaped. The same input gives the same bytes.
#pragma once

#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "qkv/report/chart.h"

namespace qkv {

// A key figure.
struct Tile {
  std::string label{};
  std::string value{};
  std::string note{};  // small print below
};

using KeyValues = std::vector<std::pair<std::string, std::string>>;

// A table cell: its text, the number its column sorts by (NaN: sorts by text), and the heights of small bars
// before it.
struct Cell {
  Cell(std::string text)
      : text(std::move(text)) {}          // NOLINT(google-explicit-constructor): rows are brace lists
  Cell(const char* text) : text(text) {}  // NOLINT(google-explicit-constructor)
  Cell(double number, std::string text) : text(std::move(text)), number(number) {}
  std::string text;
  double number = std::numeric_limits<double>::quiet_NaN();
  std::vector<double> bars{};  // not negative; what is not finite has no bar
};
// A cell for `value` as format_number() writes it; NaN is an empty cell that sorts last.
Cell number_cell(double value, int significant = 4);

struct Table {
  struct Column {
    std::string name{};
    bool numeric = false;  // aligned right, in figures of equal width
  };
  std::string title{};
  std::string note{};
  std::vector<Column> columns{};
  std::vector<std::vector<Cell>> rows{};  // each as long as `columns`
};

class Page {
 public:
  explicit Page(std::string title, std::string subtitle = "");

  void heading(std::string_view text);
  void paragraph(std::string_view text);
  void tiles(const std::vector<Tile>& tiles);
  // `folded`: shown when the reader opens it.
  void key_values(std::string_view title, const KeyValues& pairs, bool folded = false);
  // Throws Error naming the table if a row has another length than `columns`.
  void table(const Table& table);
  // A passage of text with its line breaks, for example a model's answer: `lead` (what it was given) is set
  // apart.
  void passage(std::string_view label, std::string_view lead, std::string_view text);
  template <typename Chart>
  void chart(const Chart& chart) {
    body_ += render(chart, "chart-" + std::to_string(++charts_));
  }

  std::string html() const;
  // Writes html() to `path`, whole or not at all. Throws Error naming the path.
  void write(const std::string& path) const;

 private:
  std::string title_, subtitle_, body_;
  int charts_ = 0;
};

}  // namespace qkv
