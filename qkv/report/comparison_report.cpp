// Several training runs in one page.

#include <fmt/format.h>

#include <map>

#include "qkv/core/error.h"
#include "qkv/core/progress.h"
#include "qkv/report/markup.h"
#include "qkv/report/page.h"
#include "qkv/report/run_series.h"
#include "qkv/report/training_report.h"

namespace qkv {
namespace {

struct Run {
  std::string name;
  TrainingReport report;
  std::vector<double> losses{};  // per step, as recorded
  std::vector<double> smooth{};  // the same, smoothed for display
  // Loss minus the first run's at the steps both recorded.
  std::vector<double> common_steps{}, differences{};
};

std::vector<Run> read_runs(const std::vector<NamedRun>& names) {
  require(!names.empty(), "[report] comparison: expected at least one run, found none");
  std::vector<Run> runs;
  for (const auto& [name, metrics] : names) {
    Run run{.name = name, .report = read_metrics(metrics)};
    run.losses = column(run.report.train, &TrainPoint::loss);
    run.smooth = smoothed_for_display(run.losses);
    runs.push_back(std::move(run));
  }
  std::map<int64_t, double> first;
  for (const auto& point : runs.front().report.train) first[point.step] = point.loss;
  for (size_t r = 1; r < runs.size(); ++r) {
    for (const auto& point : runs[r].report.train) {
      const auto match = first.find(point.step);
      if (match == first.end()) continue;
      runs[r].common_steps.push_back(static_cast<double>(point.step));
      runs[r].differences.push_back(point.loss - match->second);
    }
  }
  return runs;
}

std::vector<double> absolute(std::vector<double> values) {
  for (double& value : values) value = std::abs(value);
  return values;
}

double mean(const std::vector<double>& values) {
  const auto known = finite(values);
  double sum = 0;
  for (const double value : known) sum += value;
  return known.empty() ? kUnknown : sum / static_cast<double>(known.size());
}

Table table_of(const std::vector<Run>& runs) {
  Table table{
      .title = "Runs",
      .columns = {{"run", false},
                  {"steps", true},
                  {"tokens", true},
                  {"final train loss", true},
                  {"best validation loss", true},
                  {"wall time", true},
                  {"tokens/s, median", true},
                  {"peak memory", true}},
  };
  const bool compared = runs.size() > 1;
  if (compared) {
    table.note = fmt::format("Δ: difference in training loss from {}, over the steps both recorded.",
                             runs.front().name);
    table.columns.push_back({"mean |Δ|", true});
    table.columns.push_back({"largest |Δ|", true});
  }
  for (const auto& run : runs) {
    const auto& train = run.report.train;
    const EvalPoint* best = best_eval(run.report);
    const double loss = last_known(run.smooth), validation = best != nullptr ? best->loss : kUnknown;
    const double seconds = last_known(column(train, &TrainPoint::elapsed_seconds));
    const double memory = largest(column(train, &TrainPoint::memory_bytes));
    const auto loss_cell = [](double value) {
      return Cell(value, std::isnan(value) ? "" : fmt::format("{:.4f}", value));
    };
    const bool sized = std::isfinite(memory) && memory >= 0;
    table.rows.push_back(
        {run.name, number_cell(static_cast<double>(last_step(run.report))),
         Cell(static_cast<double>(last_tokens(run.report)),
              format_count(static_cast<double>(last_tokens(run.report)))),
         loss_cell(loss), loss_cell(validation),
         Cell(seconds, std::isnan(seconds) ? "" : format_duration(seconds)),
         number_cell(median(column(train, &TrainPoint::tokens_per_second))),
         Cell(memory, sized ? format_bytes(static_cast<uint64_t>(std::min(memory, 1e18))) : "")});
    if (compared) {
      table.rows.back().push_back(number_cell(mean(absolute(run.differences)), 3));
      table.rows.back().push_back(number_cell(largest(absolute(run.differences)), 3));
    }
  }
  return table;
}

// Adds a chart with one series per run that has anything to show; `points` gives a run's x and y. `noisy`: a
// smoothed line over the faint one.
template <typename PointsOf>
void add_chart(Page& page, const std::vector<Run>& runs, LineChart chart, PointsOf points,
               bool noisy = false) {
  std::vector<double> all;
  for (size_t r = 0; r < runs.size(); ++r) {
    auto [x, y] = points(runs[r]);
    const auto known = finite(y);
    if (known.empty()) continue;
    all.insert(all.end(), known.begin(), known.end());
    if (noisy && smoothing_span(y.size()) >= 3) {
      chart.series.push_back({.name = runs[r].name + ", each step",
                              .x = x,
                              .y = y,
                              .style = Series::Style::faint_line,
                              .colour = static_cast<int>(r)});
      y = smoothed_for_display(y);
    }
    chart.series.push_back({.name = runs[r].name,
                            .x = std::move(x),
                            .y = std::move(y),
                            .style = known.size() < 40 ? Series::Style::line_and_points : Series::Style::line,
                            .colour = static_cast<int>(r)});
  }
  if (chart.series.empty()) return;
  if (!chart.y.from_zero) chart.y.log = wants_log(all);
  page.chart(chart);
}

LineChart half_chart(std::string title, Axis x, Axis y, std::string note = "") {
  return {.title = std::move(title),
          .note = std::move(note),
          .x = std::move(x),
          .y = std::move(y),
          .width = ChartWidth::half};
}

}  // namespace

void write_comparison_report(const std::string& path, const std::vector<NamedRun>& names) {
  const std::vector<Run> runs = read_runs(names);
  bool tokens = true, smooth = false;
  double seconds = 0, memory = 0;
  std::string title;
  for (const auto& run : runs) {
    tokens = tokens && last_tokens(run.report) > 0;
    smooth = smooth || smoothing_span(run.losses.size()) >= 3;
    seconds = std::max(seconds, largest(column(run.report.train, &TrainPoint::elapsed_seconds)));
    memory = std::max(memory, largest(column(run.report.train, &TrainPoint::memory_bytes)));
    title += (title.empty() ? "" : " · ") + run.name;
  }
  const Axis progress{.label = tokens ? "tokens" : "step"};
  const auto progress_of = [&](const auto& records) {
    using Record = typename std::decay_t<decltype(records)>::value_type;
    return tokens ? column(records, &Record::tokens) : column(records, &Record::step);
  };
  const Unit time = time_unit(seconds), bytes = byte_unit(memory);
  const auto time_of = [&](const Run& run) {
    return in_unit(column(run.report.train, &TrainPoint::elapsed_seconds), time);
  };
  const std::string smoothing = smooth ? "Smoothed." : "";
  const Axis loss{.label = "loss", .unit = "nats"};

  Page page("Comparison of training runs", title);
  page.table(table_of(runs));
  LineChart main = half_chart("Training loss", progress, loss, smoothing);
  main.width = ChartWidth::full;
  add_chart(page, runs, main,
            [&](const Run& run) { return std::pair(progress_of(run.report.train), run.smooth); });
  add_chart(page, runs, half_chart("Validation loss", progress, loss), [&](const Run& run) {
    return std::pair(progress_of(run.report.eval), column(run.report.eval, &EvalPoint::loss));
  });
  add_chart(
      page, runs,
      half_chart("Training loss by wall time", {.label = "wall time", .unit = time.name}, loss, smoothing),
      [&](const Run& run) { return std::pair(time_of(run), run.smooth); });
  add_chart(
      page, runs,
      half_chart("Difference in training loss", {.label = "step"}, {.unit = "nats", .from_zero = true},
                 fmt::format("From {}, at the steps both recorded.", runs.front().name)),
      [](const Run& run) { return std::pair(run.common_steps, run.differences); }, true);
  add_chart(page, runs, half_chart("Gradient norm", progress, {}, smoothing), [&](const Run& run) {
    return std::pair(progress_of(run.report.train),
                     smoothed_for_display(column(run.report.train, &TrainPoint::grad_norm)));
  });
  add_chart(
      page, runs, half_chart("Throughput", progress, {.label = "tokens/s", .from_zero = true}, smoothing),
      [&](const Run& run) {
        return std::pair(progress_of(run.report.train),
                         smoothed_for_display(column(run.report.train, &TrainPoint::tokens_per_second)));
      });
  add_chart(page, runs, half_chart("Memory", progress, {.unit = bytes.name, .from_zero = true}),
            [&](const Run& run) {
              return std::pair(progress_of(run.report.train),
                               in_unit(column(run.report.train, &TrainPoint::memory_bytes), bytes));
            });
  page.write(path);
}

}  // namespace qkv
