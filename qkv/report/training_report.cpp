#include "qkv/report/training_report.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "qkv/core/progress.h"
#include "qkv/report/markup.h"
#include "qkv/report/page.h"
#include "qkv/report/run_series.h"

namespace qkv {
namespace {

// More events than this are listed in their table only.
constexpr size_t kMaximumMarkers = 20;

std::string loss_text(double loss) {
  return std::isfinite(loss) ? fmt::format("{:.4f}", loss) : format_number(loss);
}

double perplexity_of(const EvalPoint& point) {
  return std::isfinite(point.perplexity) ? point.perplexity : std::exp(point.loss);
}

std::vector<Tile> tiles_of(const TrainingReport& report) {
  std::vector<Tile> tiles;
  if (const EvalPoint* best = best_eval(report)) {
    const EvalPoint& final = report.eval.back();
    tiles.push_back({"Best validation loss", loss_text(best->loss),
                     "step " + format_number(static_cast<double>(best->step))});
    tiles.push_back({"Perplexity there", format_number(perplexity_of(*best)), ""});
    tiles.push_back({"Final validation loss", loss_text(final.loss),
                     "step " + format_number(static_cast<double>(final.step))});
  } else if (!report.train.empty()) {
    const auto losses = smoothed_for_display(column(report.train, &TrainPoint::loss));
    tiles.push_back({"Final training loss", loss_text(last_known(losses)),
                     smoothing_span(losses.size()) < 3 ? "" : "smoothed"});
  }
  if (last_step(report) > 0) {
    tiles.push_back({"Tokens", format_count(static_cast<double>(last_tokens(report))),
                     format_number(static_cast<double>(last_step(report))) + " steps"});
  }
  const double seconds = last_known(column(report.train, &TrainPoint::elapsed_seconds));
  if (std::isfinite(seconds)) tiles.push_back({"Wall time", format_duration(seconds), ""});
  const double speed = median(column(report.train, &TrainPoint::tokens_per_second));
  if (std::isfinite(speed)) tiles.push_back({"Tokens per second", format_count(speed), "median"});
  const double memory = largest(column(report.train, &TrainPoint::memory_bytes));
  if (std::isfinite(memory) && memory >= 0) {
    tiles.push_back({"Peak memory", format_bytes(static_cast<uint64_t>(std::min(memory, 1e18))), ""});
  }
  const double mfu = median(column(report.train, &TrainPoint::mfu));
  if (std::isfinite(mfu))
    tiles.push_back({"Model FLOPs utilization", fmt::format("{:.1f} %", mfu * 100), "median"});
  return tiles;
}

std::vector<Marker> markers_of(const TrainingReport& report) {
  std::vector<Marker> markers;
  if (report.events.size() <= kMaximumMarkers) {
    for (const auto& event : report.events) markers.push_back({static_cast<double>(event.step), event.text});
  }
  if (const EvalPoint* best = best_eval(report)) {
    markers.push_back({static_cast<double>(best->step), "best " + loss_text(best->loss)});
  }
  return markers;
}

LineChart loss_chart(const TrainingReport& report) {
  const auto steps = column(report.train, &TrainPoint::step);
  const auto losses = column(report.train, &TrainPoint::loss);
  const auto validation = column(report.eval, &EvalPoint::loss);
  LineChart chart;
  chart.title = "Loss";
  chart.x = {.label = "step"};
  chart.y = {.label = "loss", .unit = "nats", .log = wants_log(losses) || wants_log(validation)};
  if (report.events.size() > kMaximumMarkers) chart.note = "Events are listed below.";
  if (!losses.empty()) {
    const bool smooth = smoothing_span(losses.size()) >= 3;
    chart.series.push_back({.name = "train",
                            .x = steps,
                            .y = losses,
                            .style = smooth ? Series::Style::faint_line : Series::Style::line,
                            .colour = 0});
    if (smooth) {
      chart.series.push_back(
          {.name = "train, smoothed", .x = steps, .y = smoothed_for_display(losses), .colour = 0});
    }
  }
  if (!validation.empty()) {
    chart.series.push_back({.name = "validation",
                            .x = column(report.eval, &EvalPoint::step),
                            .y = validation,
                            .style = Series::Style::line_and_points,
                            .colour = 1});
  }
  chart.markers = markers_of(report);
  return chart;
}

// A chart of one column by step, if anything of it was recorded.
void add_column(Page& page, const TrainingReport& report, std::string title, Axis axis,
                std::vector<double> values, bool smooth) {
  if (finite(values).empty()) return;
  LineChart chart{
      .title = std::move(title), .x = {.label = "step"}, .y = std::move(axis), .width = ChartWidth::half};
  const auto steps = column(report.train, &TrainPoint::step);
  const bool two = smooth && smoothing_span(values.size()) >= 3;
  chart.series.push_back({.name = chart.title,
                          .x = steps,
                          .y = values,
                          .style = two ? Series::Style::faint_line : Series::Style::line,
                          .colour = 0});
  if (two) {
    chart.series.push_back({.name = "smoothed", .x = steps, .y = smoothed_for_display(values), .colour = 0});
    chart.series.front().name = "each step";
  }
  page.chart(chart);
}

void add_charts(Page& page, const TrainingReport& report) {
  page.chart(loss_chart(report));
  add_column(page, report, "Learning rate", {.from_zero = true},
             column(report.train, &TrainPoint::learning_rate), false);
  const auto norms = column(report.train, &TrainPoint::grad_norm);
  add_column(page, report, "Gradient norm", {.log = wants_log(norms), .from_zero = true}, norms, true);
  add_column(page, report, "Throughput", {.label = "tokens/s", .from_zero = true},
             column(report.train, &TrainPoint::tokens_per_second), true);
  const auto memory = column(report.train, &TrainPoint::memory_bytes);
  const Unit unit = byte_unit(largest(memory));
  add_column(page, report, "Memory", {.unit = unit.name, .from_zero = true}, in_unit(memory, unit), false);
}

// {"optimizer": {"lr": 3e-4}} as "optimizer.lr", "0.0003".
void flatten(const Json& json, const std::string& prefix, KeyValues& out) {
  if (json.is_object() && !json.empty()) {
    for (const auto& [key, value] : json.items())
      flatten(value, prefix.empty() ? key : prefix + "." + key, out);
    return;
  }
  out.emplace_back(prefix, json.is_string() ? json.get<std::string>() : dump_json(json));
}

void add_tables(Page& page, const TrainingReport& report) {
  if (!report.checkpoints.empty()) {
    Table table{
        .title = "Checkpoints",
        .columns = {{"step", true}, {"validation loss", true}, {"size", true}, {"", false}, {"path", false}}};
    for (const auto& entry : report.checkpoints) {
      const bool sized = std::isfinite(entry.bytes) && entry.bytes >= 0;
      table.rows.push_back({number_cell(static_cast<double>(entry.step)),
                            Cell(entry.loss, std::isnan(entry.loss) ? "" : loss_text(entry.loss)),
                            Cell(entry.bytes, sized ? format_bytes(static_cast<uint64_t>(entry.bytes)) : ""),
                            entry.best ? "best" : "", entry.path});
    }
    page.table(table);
  }
  if (!report.eval.empty()) {
    Table table{
        .title = "Evaluations",
        .columns = {{"step", true}, {"tokens", true}, {"loss", true}, {"perplexity", true}, {"", false}}};
    const EvalPoint* best = best_eval(report);
    for (const auto& point : report.eval) {
      table.rows.push_back({number_cell(static_cast<double>(point.step)),
                            number_cell(static_cast<double>(point.tokens)),
                            Cell(point.loss, loss_text(point.loss)), number_cell(perplexity_of(point)),
                            &point == best ? "best" : ""});
    }
    page.table(table);
  }
  if (!report.events.empty()) {
    Table table{.title = "Events", .columns = {{"step", true}, {"event", false}}};
    for (const auto& event : report.events)
      table.rows.push_back({number_cell(static_cast<double>(event.step)), event.text});
    page.table(table);
  }
}

Page page_of(const TrainingReport& report) {
  Page page(report.title, report.subtitle);
  page.tiles(tiles_of(report));
  add_charts(page, report);
  page.key_values("Results", report.final_numbers);
  if (!report.samples.empty()) page.heading("Samples");
  for (const auto& sample : report.samples) {
    page.passage("Step " + format_number(static_cast<double>(sample.step)), sample.prompt, sample.text);
  }
  const bool tables = !report.checkpoints.empty() || !report.eval.empty() || !report.events.empty();
  if (tables || report.replaced_records > 0) page.heading("Course of the run");
  if (report.replaced_records > 0) {
    page.paragraph(fmt::format("Steps were trained again after a resume: {} earlier records are left out.",
                               format_number(static_cast<double>(report.replaced_records))));
  }
  add_tables(page, report);
  KeyValues config;
  if (report.config) flatten(*report.config, "", config);
  if (!report.model.empty() || !config.empty()) page.heading("What was run");
  page.key_values("Model", report.model);
  page.key_values("Configuration", config);
  return page;
}

}  // namespace

std::string training_report_html(const TrainingReport& report) {
  return page_of(report).html();
}

void write_training_report(const std::string& path, const TrainingReport& report) {
  page_of(report).write(path);
}

}  // namespace qkv
