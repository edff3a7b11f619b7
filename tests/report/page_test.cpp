#include "qkv/report/page.h"

#include <gmock/gmock.h>

#include <cmath>
#include <limits>

#include "html_check.h"
#include "qkv/core/atomic_file.h"
#include "qkv/core/error.h"
#include "qkv/report/assets.h"
#include "qkv/report/markup.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

using test::markup_fault;
using test::occurrences;
using testing::HasSubstr;
using testing::Not;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr const char* kAttack = "</title></script><script>alert(1)</script>\"' onload=x <!--&";

LineChart small_chart() {
  return {.title = "Loss",
          .note = "two runs",
          .x = {.label = "step"},
          .y = {.label = "loss", .unit = "nats"},
          .series = {{.name = "train", .x = {0, 10, 20, 30}, .y = {4, 3, 2.5, 2.25}},
                     {.name = "validation",
                      .x = {10, 30},
                      .y = {3.125, kNan},
                      .style = Series::Style::line_and_points}},
          .markers = {{20, "resumed"}},
          .width = ChartWidth::half};
}

// One of everything, with `text` wherever text can stand.
Page page_of_everything(const std::string& text) {
  Page page(text, text);
  page.heading(text);
  page.paragraph(text);
  page.tiles({{text, text, text}});
  page.key_values(text, {{text, text}});
  page.key_values(text, {{text, text}}, true);
  page.table({.title = text,
              .note = text,
              .columns = {{text, true}, {text, false}},
              .rows = {{Cell(1.5, text), text}}});
  page.passage(text, text, text);
  const Axis axis{.label = text, .unit = text};
  page.chart(
      LineChart{.title = text,
                .note = text,
                .x = axis,
                .y = axis,
                .series = {{.name = text, .x = {1, 2}, .y = {1, 2}}, {.name = text, .x = {1}, .y = {3}}},
                .markers = {{1.5, text}}});
  page.chart(BarChart{.title = text,
                      .note = text,
                      .value = axis,
                      .categories = {text, "b"},
                      .groups = {{text, {1, -2}}, {text, {kNan, 3}}}});
  page.chart(Histogram{
      .title = text, .note = text, .value = axis, .count = axis, .edges = {0, 1, 2}, .counts = {3, 4}});
  for (const auto colours :
       {HeatMap::Colours::sequential, HeatMap::Colours::sequential_log, HeatMap::Colours::diverging}) {
    page.chart(HeatMap{.title = text,
                       .note = text,
                       .value_label = text,
                       .rows = {text, "b"},
                       .columns = {text, "b"},
                       .values = {1, -2, kNan, 4},
                       .colours = colours});
  }
  return page;
}

TEST(Markup, EscapesEverythingThatEndsAnything) {
  EXPECT_EQ(escape_html("<a b=\"c\" d='e'>&"), "&lt;a b=&quot;c&quot; d=&#39;e&#39;&gt;&amp;");
  EXPECT_EQ(escape_html(std::string("a\0b\x1b", 4) + "\xff\tc\r\n"), "a\uFFFDb\uFFFD\uFFFD\tc\n");
  EXPECT_EQ(escape_html("héllo 日本"), "héllo 日本");
}

TEST(Markup, NumbersReadWell) {
  EXPECT_EQ(format_number(0), "0");
  EXPECT_EQ(format_number(1234567), "1,234,567");
  EXPECT_EQ(format_number(-1234), "\u22121,234");
  EXPECT_EQ(format_number(3.14159), "3.142");
  EXPECT_EQ(format_number(12345.678), "12,346");
  EXPECT_EQ(format_number(0.5), "0.5");
  EXPECT_EQ(format_number(3e-4), "3e-4");
  EXPECT_EQ(format_number(1.2345e20), "1.234e20");
  EXPECT_EQ(format_number(kNan), "NaN");
  EXPECT_EQ(format_number(-kInfinity), "\u2212∞");
  EXPECT_EQ(format_count(9999), "9,999");
  EXPECT_EQ(format_count(12345), "12.3k");
  EXPECT_EQ(format_count(999960), "1M");
  EXPECT_EQ(format_count(3.5e9), "3.5B");
}

TEST(Page, TextCannotBecomeMarkup) {
  const std::string html = page_of_everything(kAttack).html();
  EXPECT_EQ(markup_fault(html), "");
  EXPECT_EQ(occurrences(html, "<script"), 1u);
  EXPECT_EQ(occurrences(html, "</script"), 1u);
  EXPECT_EQ(occurrences(html, "<!--"), 0u);
  EXPECT_THAT(html, HasSubstr("&lt;script&gt;alert(1)"));
}

TEST(Page, NamesNothingOutsideItself) {
  const std::string html = page_of_everything("text").html();
  EXPECT_EQ(markup_fault(html), "");
  for (const char* reference : {"http:", "https:", "src=", "href=", "@import", "url(\"", "url(h", "//cdn",
                                "fetch(", "XMLHttp", "<link"}) {
    EXPECT_EQ(html.find(reference), std::string::npos) << reference;
  }
  EXPECT_THAT(html, HasSubstr("default-src 'none'"));
  EXPECT_LT(page_script().size(), 9000u);
}

TEST(Page, ChartsHaveNamesDescriptionsAndTables) {
  const std::string html = page_of_everything("text").html();
  EXPECT_EQ(occurrences(html, "role=\"img\""), 6u);
  EXPECT_EQ(occurrences(html, "<desc id="), 6u);
  EXPECT_EQ(occurrences(html, "<summary>Data</summary>"), 6u);
}

TEST(Page, OddDataStaysOutOfTheDrawing) {
  const std::vector<std::vector<double>> lists = {
      {}, {kNan}, {1}, {kNan, kInfinity, -kInfinity}, {2, 2, 2}, {0, -1, 1e308, 1e-320}};
  Page page("odd");
  for (const auto& y : lists) {
    std::vector<double> x(y.size());
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<double>(i);
    for (const bool log : {false, true}) {
      const Axis axis{.label = "a", .log = log};
      page.chart(LineChart{.title = "line",
                           .x = axis,
                           .y = axis,
                           .series = {{.name = "s", .x = x, .y = y}},
                           .markers = {{kNan, "m"}}});
      page.chart(make_histogram("histogram", axis, y, 7));
    }
    page.chart(BarChart{
        .title = "bars", .categories = std::vector<std::string>(y.size(), "c"), .groups = {{"g", y}}});
    page.chart(HeatMap{.title = "heat",
                       .rows = std::vector<std::string>(y.size(), "r"),
                       .columns = {"c"},
                       .values = y,
                       .colours = HeatMap::Colours::sequential_log});
  }
  page.chart(LineChart{});
  page.chart(BarChart{});
  page.chart(Histogram{});
  page.chart(HeatMap{});
  const std::string html = page.html();
  EXPECT_EQ(markup_fault(html), "");
  for (size_t at = html.find("<svg viewBox"); at != std::string::npos;
       at = html.find("<svg viewBox", at + 1)) {
    std::string svg = html.substr(at, html.find("</svg>", at) - at);
    for (size_t begin = svg.find("=\""); begin != std::string::npos; begin = svg.find("=\"", begin + 2)) {
      const std::string value = svg.substr(begin + 2, svg.find('"', begin + 2) - begin - 2);
      ASSERT_THAT(value, Not(testing::AnyOf(HasSubstr("nan"), HasSubstr("inf")))) << svg.substr(0, 200);
    }
  }
  EXPECT_THAT(html, HasSubstr("no data"));
  EXPECT_THAT(html, HasSubstr("3 values that are not finite are left out."));
}

TEST(Page, LongSeriesAreDrawnWithFewPoints) {
  LineChart chart{.title = "long", .series = {{.name = "s"}}};
  for (int i = 0; i < 200000; ++i) {
    chart.series[0].x.push_back(i);
    chart.series[0].y.push_back(std::sin(i * 0.01));
  }
  const std::string html = render(chart, "c");
  const size_t path = html.find("<path d=\"M");
  ASSERT_NE(path, std::string::npos);
  const std::string data = html.substr(path, html.find('>', path) - path);
  EXPECT_LE(occurrences(data, "L"), 1499u);
  EXPECT_GE(occurrences(data, "L"), 1000u);
}

TEST(Page, PartsThatDisagreeAreErrors) {
  Page page("errors");
  EXPECT_EQ(test::error_of([&] {
              page.table({.title = "t", .columns = {{"a"}}, .rows = {{"1", "2"}}});
            }),
            "[report] table 't': row 0: expected 1 cells, found 2");
  EXPECT_EQ(test::error_of(
                [&] { page.chart(LineChart{.title = "t", .series = {{.name = "s", .x = {1}, .y = {}}}}); }),
            "[report] chart 't': series 's': expected as many x as y values, found 1 and 0");
  EXPECT_THAT(test::error_of([&] {
                page.chart(BarChart{.title = "t", .categories = {"a"}, .groups = {{"g", {}}}});
              }),
              HasSubstr("expected 1 values"));
  EXPECT_THAT(test::error_of([&] {
                page.chart(Histogram{.edges = {1, 2}, .counts = {}});
              }),
              HasSubstr("one more edge"));
  EXPECT_THAT(test::error_of([&] {
                page.chart(Histogram{.edges = {2, 1}, .counts = {1}});
              }),
              HasSubstr("ascending"));
  EXPECT_THAT(test::error_of([&] { page.chart(HeatMap{.rows = {"r"}, .columns = {"c"}}); }),
              HasSubstr("expected 1 x 1"));
}

TEST(Histogram, CountsEveryValueOnce) {
  const Histogram chart = make_histogram("h", {}, {0, 0.1, 0.5, 0.99, 1, kNan}, 2);
  EXPECT_THAT(chart.edges, testing::ElementsAre(0, 0.5, 1));
  EXPECT_THAT(chart.counts, testing::ElementsAre(2, 3));
  EXPECT_EQ(chart.note, "1 of 6 values have no place on this axis.");
}

TEST(Smoothed, IsExactOnConstantsAndStraightInside) {
  EXPECT_THAT(smoothed({3, 3, 3}, 10), testing::Each(testing::DoubleEq(3)));
  EXPECT_THAT(smoothed({1, 2, 5}, 1), testing::ElementsAre(1, 2, 5));
  std::vector<double> ramp(200);
  for (size_t i = 0; i < ramp.size(); ++i) ramp[i] = static_cast<double>(i);
  EXPECT_NEAR(smoothed(ramp, 9)[100], 100, 1e-6);  // no lag
  const auto gap = smoothed({1, kNan, 1}, 4);
  EXPECT_TRUE(std::isnan(gap[1]));
  EXPECT_DOUBLE_EQ(gap[2], 1);
}

// A drawing that changes should be looked at, and then kept: the new one lies in the build folder.
TEST(LineChart, DrawsAsBefore) {
  const std::string html = render(small_chart(), "golden");
  const std::string actual = std::string(QKV_BINARY_DIR) + "/line_chart.html";
  write_file(actual, html);
  EXPECT_EQ(html, read_file(std::string(QKV_SOURCE_DIR) + "/tests/report/line_chart.html"))
      << "drawn now: " << actual;
}

TEST(Page, SameInputSameBytes) {
  EXPECT_EQ(page_of_everything("a").html(), page_of_everything("a").html());
}

}  // namespace
}  // namespace qkv
