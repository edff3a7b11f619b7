#include "qkv/report/page.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "qkv/core/atomic_file.h"
#include "qkv/core/error.h"
#include "qkv/report/assets.h"
#include "qkv/report/markup.h"

namespace qkv {
namespace {

// A longer table scrolls inside its card (on paper it is whole).
constexpr size_t kRowsShown = 15;

// Bars as one path, so that a table of thousands of rows stays small; the tallest is kBarHeight.
std::string small_bars(const std::vector<double>& bars) {
  constexpr int kBarHeight = 20;
  double tallest = 0;
  for (const double bar : bars) tallest = std::isfinite(bar) ? std::max(tallest, bar) : tallest;
  if (!(tallest > 0)) return "";
  std::string path = fmt::format("M0 {}", kBarHeight);
  long before = kBarHeight;
  for (const double bar : bars) {
    const long top = kBarHeight - (std::isfinite(bar) ? std::lround(kBarHeight * bar / tallest) : 0);
    if (top != before) path += fmt::format("V{}", top);
    path += "h1";
    before = top;
  }
  return fmt::format(
      "<svg class=\"bars\" viewBox=\"0 0 {} {}\" aria-hidden=\"true\"><path d=\"{}V{}z\"/></svg>",
      bars.size(), kBarHeight, path, kBarHeight);
}

}  // namespace

Cell number_cell(double value, int significant) {
  return Cell(value, std::isnan(value) ? "" : format_number(value, significant));
}

Page::Page(std::string title, std::string subtitle)
    : title_(std::move(title)), subtitle_(std::move(subtitle)) {}

void Page::heading(std::string_view text) {
  body_ += fmt::format("<h2>{}</h2>\n", escape_html(text));
}

void Page::paragraph(std::string_view text) {
  body_ += fmt::format("<p>{}</p>\n", escape_html(text));
}

void Page::tiles(const std::vector<Tile>& tiles) {
  if (tiles.empty()) return;
  // One row, or two about equally full.
  const size_t n = tiles.size();
  body_ += fmt::format("<dl class=\"tiles c{}\">\n", n <= 5 ? n : n <= 6 ? 3 : n <= 8 ? 4 : n <= 10 ? 5 : 4);
  for (const auto& tile : tiles) {
    body_ +=
        fmt::format("<div><dt>{}</dt><dd>{}{}</dd></div>\n", escape_html(tile.label), escape_html(tile.value),
                    tile.note.empty() ? "" : fmt::format("<small>{}</small>", escape_html(tile.note)));
  }
  body_ += "</dl>\n";
}

void Page::key_values(std::string_view title, const KeyValues& pairs, bool folded) {
  if (pairs.empty()) return;
  body_ += folded ? fmt::format("<details class=\"card\"><summary>{}</summary>\n", escape_html(title))
                  : fmt::format("<section class=\"card\"><h3>{}</h3>\n", escape_html(title));
  body_ += "<dl class=\"pairs\">\n";
  for (const auto& [key, value] : pairs) {
    body_ += fmt::format("<div><dt>{}</dt><dd>{}</dd></div>\n", escape_html(key), escape_html(value));
  }
  body_ += folded ? "</dl></details>\n" : "</dl></section>\n";
}

void Page::table(const Table& table) {
  body_ += fmt::format("<section class=\"card\"><h3>{}</h3>\n", escape_html(table.title));
  if (!table.note.empty()) body_ += fmt::format("<p class=\"note\">{}</p>\n", escape_html(table.note));
  const bool tall = table.rows.size() > kRowsShown;
  body_ +=
      fmt::format("<div class=\"scroll{}\"><table class=\"sortable\">\n<thead><tr>", tall ? " tall" : "");
  for (const auto& column : table.columns) {
    body_ += fmt::format("<th scope=\"col\"{}>{}</th>", column.numeric ? " class=\"number\"" : "",
                         escape_html(column.name));
  }
  body_ += "</tr></thead>\n<tbody>\n";
  for (size_t r = 0; r < table.rows.size(); ++r) {
    const auto& row = table.rows[r];
    require(row.size() == table.columns.size(), "[report] table '{}': row {}: expected {} cells, found {}",
            table.title, r, table.columns.size(), row.size());
    body_ += "<tr>";
    for (size_t c = 0; c < row.size(); ++c) {
      const std::string value =
          std::isnan(row[c].number) ? "" : fmt::format(" data-value=\"{:.17g}\"", row[c].number);
      body_ += fmt::format("<td{}{}>{}{}</td>", table.columns[c].numeric ? " class=\"number\"" : "", value,
                           small_bars(row[c].bars), escape_html(row[c].text));
    }
    body_ += "</tr>\n";
  }
  body_ += "</tbody></table></div></section>\n";
}

void Page::passage(std::string_view label, std::string_view lead, std::string_view text) {
  body_ += fmt::format(
      "<section class=\"card passage\"><h3>{}</h3>\n<p><span class=\"lead\">{}</span>{}</p></section>\n",
      escape_html(label), escape_html(lead), escape_html(text));
}

std::string Page::html() const {
  // The policy allows this page's own style and script (named by their nonce) and nothing else, from
  // anywhere.
  std::string out =
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<meta name=\"color-scheme\" content=\"light dark\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'nonce-page'; "
      "script-src 'nonce-page'; base-uri 'none'; form-action 'none'\">\n";
  out += fmt::format("<title>{}</title>\n<style nonce=\"page\">\n{}</style>\n</head>\n<body>\n<main>\n",
                     escape_html(title_), page_style());
  out += fmt::format("<header><h1>{}</h1>", escape_html(title_));
  if (!subtitle_.empty()) out += fmt::format("<p class=\"subtitle\">{}</p>", escape_html(subtitle_));
  out += "</header>\n" + body_ + "</main>\n";
  return out + fmt::format("<script nonce=\"page\">\n{}</script>\n</body>\n</html>\n", page_script());
}

void Page::write(const std::string& path) const {
  write_file(path, html());
}

}  // namespace qkv
