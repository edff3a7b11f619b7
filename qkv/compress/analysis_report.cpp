#include "qkv/compress/analysis_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <set>

#include "qkv/core/progress.h"
#include "qkv/report/markup.h"

namespace qkv {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
// Rows from which on the small histograms are left away: a page of tens of thousands of rows is slow enough.
constexpr size_t kMostHistograms = 4000;

using Value = std::function<double(const TensorAnalysis&)>;

double share_of(int64_t part, int64_t whole) {
  return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : 0;
}

// Layers from left to right, roles of matrices downwards; tensors of one place (experts) are averaged, the
// worst counts where `worst`.
void add_heat_map(Page& page, const CheckpointAnalysis& analysis, const std::string& title,
                  const std::string& note, const std::string& label, HeatMap::Colours colours, bool worst,
                  const Value& value) {
  struct Sum {
    double value = 0;
    int64_t count = 0;
  };
  std::set<int64_t> layers;
  std::vector<std::string> roles;
  std::map<std::pair<std::string, int64_t>, Sum> sums;
  for (const TensorAnalysis& tensor : analysis.tensors) {
    if (!tensor.place.layer || tensor.entry.shape.rank() < 2) continue;
    const double x = value(tensor);
    if (!std::isfinite(x)) continue;
    layers.insert(*tensor.place.layer);
    if (std::find(roles.begin(), roles.end(), tensor.place.role) == roles.end())
      roles.push_back(tensor.place.role);
    Sum& sum = sums[{tensor.place.role, *tensor.place.layer}];
    sum.value = worst ? std::max(sum.value, x) : sum.value + x;
    ++sum.count;
  }
  if (sums.empty()) return;
  HeatMap map{.title = title, .note = note, .value_label = label, .colours = colours};
  std::sort(roles.begin(), roles.end());
  for (const auto& role : roles) map.rows.push_back(role);
  for (const int64_t layer : layers) map.columns.push_back(std::to_string(layer));
  for (const auto& role : roles) {
    for (const int64_t layer : layers) {
      const auto found = sums.find({role, layer});
      map.values.push_back(found == sums.end() ? kNone
                           : worst             ? found->second.value
                                   : found->second.value / static_cast<double>(found->second.count));
    }
  }
  page.chart(map);
}

double error_in(const TensorAnalysis& tensor, size_t form) {
  return form < tensor.errors.size() && tensor.errors[form].note.empty()
             ? tensor.errors[form].error.relative()
             : kNone;
}

double output_error_in(const TensorAnalysis& tensor, size_t form) {
  if (form >= tensor.errors.size() || !(tensor.errors[form].error.output_energy > 0)) return kNone;
  return tensor.errors[form].error.relative_output();
}

void add_tiles(Page& page, const CheckpointAnalysis& analysis) {
  int64_t elements = 0, zeros = 0, broken = 0, broken_tensors = 0;
  uint64_t bytes = 0;
  double bits = 0;
  for (const TensorAnalysis& tensor : analysis.tensors) {
    const TensorStatistics& s = tensor.statistics;
    elements += s.elements;
    zeros += s.zeros;
    broken += s.nans + s.infinities;
    broken_tensors += s.nans + s.infinities > 0 ? 1 : 0;
    bytes += tensor.entry.bytes;
    bits += s.entropy_share() * static_cast<double>(tensor.entry.bytes);
  }
  const double limit = bytes > 0 ? bits / static_cast<double>(bytes) : 0;
  page.tiles(
      {{"parameters", format_count(static_cast<double>(elements)),
        fmt::format("in {} tensors", analysis.tensors.size())},
       {"size", format_bytes(bytes),
        fmt::format("{:.2f} bits per weight", 8 * share_of(static_cast<int64_t>(bytes), elements))},
       {"entropy", fmt::format("{:.1f} %", 100 * limit), "of the size: the least without loss, order 0"},
       {"zeros", fmt::format("{:.2f} %", 100 * share_of(zeros, elements)), ""},
       {"NaN or infinite", std::to_string(broken),
        broken == 0 ? "all values are numbers" : fmt::format("in {} tensors", broken_tensors)}});
}

// Over all matrices together: the root of the summed squares.
void add_forms(Page& page, const CheckpointAnalysis& analysis) {
  if (analysis.forms.empty()) return;
  BarChart chart{.title = "Rounding error by type",
                 .note = "Relative root mean square over all matrices that the type fits.",
                 .value = {.label = "relative error"},
                 .groups = {{"weights", {}}},
                 .width = ChartWidth::half};
  if (analysis.calibrated) chart.groups.push_back({"outputs of layers", {}});
  Table table{.title = "Types",
              .note = "Bits include scales. The error of outputs is a calibration text's, layer by layer.",
              .columns = {{"type", false}, {"bits per weight", true}, {"tensors", true}, {"error", true}}};
  if (analysis.calibrated) table.columns.push_back({"error of outputs", true});
  for (size_t form = 0; form < analysis.forms.size(); ++form) {
    RoundingError sum;
    double bits = 0;
    int64_t weights = 0, tensors = 0;
    for (const TensorAnalysis& tensor : analysis.tensors) {
      if (std::isnan(error_in(tensor, form))) continue;
      sum.add(tensor.errors[form].error);
      bits += tensor.errors[form].bits_per_weight * static_cast<double>(tensor.statistics.elements);
      weights += tensor.statistics.elements;
      ++tensors;
    }
    const double error = tensors > 0 ? sum.relative() : kNone;
    const double output = sum.output_energy > 0 ? sum.relative_output() : kNone;
    chart.categories.push_back(analysis.forms[form]);
    chart.groups[0].values.push_back(error);
    table.rows.push_back({analysis.forms[form],
                          number_cell(weights > 0 ? bits / static_cast<double>(weights) : kNone),
                          number_cell(static_cast<double>(tensors)), number_cell(error)});
    if (!analysis.calibrated) continue;
    chart.groups[1].values.push_back(output);
    table.rows.back().push_back(number_cell(output));
  }
  page.heading("What types cost");
  page.chart(chart);
  page.table(table);
}

// The type whose errors the heat maps show: of those that fit nearly as many tensors as any, the nearest to
// four bits.
size_t shown_form(const CheckpointAnalysis& analysis) {
  struct Fit {
    int64_t tensors = 0;
    double bits = 0;
  };
  std::vector<Fit> fits(analysis.forms.size());
  int64_t most = 0;
  for (const TensorAnalysis& tensor : analysis.tensors) {
    for (size_t form = 0; form < tensor.errors.size(); ++form) {
      if (std::isnan(error_in(tensor, form))) continue;
      most = std::max(most, ++fits[form].tensors);
      fits[form].bits += tensor.errors[form].bits_per_weight;
    }
  }
  size_t best = 0;
  double distance = std::numeric_limits<double>::infinity();
  for (size_t form = 0; form < fits.size(); ++form) {
    if (fits[form].tensors == 0 || 10 * fits[form].tensors < 9 * most) continue;
    const double d = std::abs(fits[form].bits / static_cast<double>(fits[form].tensors) - 4.5);
    if (d >= distance) continue;
    distance = d;
    best = form;
  }
  return best;
}

void add_heat_maps(Page& page, const CheckpointAnalysis& analysis) {
  page.heading("By layer and role");
  using Colours = HeatMap::Colours;
  if (!analysis.forms.empty()) {
    const size_t form = shown_form(analysis);
    const std::string& name = analysis.forms[form];
    add_heat_map(page, analysis, "Error in " + name, "Relative root mean square of the rounded weights.",
                 "relative error", Colours::sequential, false,
                 [form](const TensorAnalysis& tensor) { return error_in(tensor, form); });
    add_heat_map(
        page, analysis, "Error of outputs in " + name,
        "What rounding the matrix does to the layer's output over the calibration text: its sensitivity.",
        "relative error", Colours::sequential_log, false,
        [form](const TensorAnalysis& tensor) { return output_error_in(tensor, form); });
  }
  add_heat_map(page, analysis, "Largest input", "The largest magnitude that the matrix is multiplied with.",
               "magnitude", Colours::sequential_log, true,
               [](const TensorAnalysis& tensor) { return tensor.inputs ? tensor.inputs->largest : kNone; });
  add_heat_map(page, analysis, "Outlier channels of inputs",
               "Inputs whose root mean square is more than twice the median's and far beyond the spread.",
               "channels", Colours::sequential, true, [](const TensorAnalysis& tensor) {
                 return tensor.inputs ? static_cast<double>(tensor.inputs->channels.outliers) : kNone;
               });
  add_heat_map(page, analysis, "Standard deviation", "", "standard deviation", Colours::sequential_log, false,
               [](const TensorAnalysis& tensor) { return tensor.statistics.deviation; });
  add_heat_map(page, analysis, "Kurtosis",
               "3 for a normal distribution, more where some weights are far out.", "kurtosis",
               Colours::sequential_log, false,
               [](const TensorAnalysis& tensor) { return tensor.statistics.kurtosis; });
  add_heat_map(page, analysis, "Entropy", "Of the stored bytes, planes apart: the least size without loss.",
               "share of the size", Colours::sequential, false,
               [](const TensorAnalysis& tensor) { return tensor.statistics.entropy_share(); });
}

Cell outlier_cell(const ChannelOutliers& channels) {
  if (channels.channels == 0) return {kNone, ""};
  std::string text = std::to_string(channels.outliers);
  for (size_t i = 0; i < std::min<size_t>(channels.largest.size(), 3); ++i)
    text += fmt::format("{}{}", i == 0 ? ": " : ", ", channels.largest[i].index);
  if (channels.largest.size() > 3) text += " …";
  return {static_cast<double>(channels.outliers), text};
}

void add_tensors(Page& page, const CheckpointAnalysis& analysis) {
  Table table{
      .title = fmt::format("All {} tensors", analysis.tensors.size()),
      .note =
          "Distribution: four standard deviations around the mean. Entropy and exponents in bits; the limit "
          "is what "
          "order-0 coding of the bytes' planes needs. Outliers: how many rows and columns have a norm far "
          "beyond the others', and the numbers of the largest.",
      .columns = {{"tensor", false},
                  {"type", false},
                  {"shape", false},
                  {"size", true},
                  {"distribution", false},
                  {"mean", true},
                  {"deviation", true},
                  {"least", true},
                  {"largest", true},
                  {"kurtosis", true},
                  {"zeros %", true},
                  {"NaN, ∞", true},
                  {"entropy", true},
                  {"exponent", true},
                  {"limit %", true},
                  {"outlier rows", true},
                  {"outlier columns", true}}};
  for (const auto& form : analysis.forms) table.columns.push_back({form + " error", true});
  if (analysis.calibrated) {
    for (const auto& form : analysis.forms) table.columns.push_back({form + " of outputs", true});
    table.columns.push_back({"largest input", true});
    table.columns.push_back({"inputs of 6 and more", true});
    table.columns.push_back({"outlier inputs", true});
  }
  const bool with_bars = analysis.tensors.size() <= kMostHistograms;
  for (const TensorAnalysis& tensor : analysis.tensors) {
    const TensorStatistics& s = tensor.statistics;
    Cell bars("");
    if (with_bars) bars.bars.assign(tensor.histogram.counts.begin(), tensor.histogram.counts.end());
    std::vector<Cell> row = {
        tensor.entry.name,
        std::string(name(tensor.entry.type)),
        tensor.entry.shape.str(),
        Cell(static_cast<double>(tensor.entry.bytes), format_bytes(tensor.entry.bytes)),
        bars,
        number_cell(s.mean),
        number_cell(s.deviation),
        number_cell(s.minimum),
        number_cell(s.maximum),
        number_cell(s.kurtosis),
        number_cell(100 * share_of(s.zeros, s.elements), 3),
        number_cell(static_cast<double>(s.nans + s.infinities)),
        Cell(s.entropy, fmt::format("{:.2f} of {}", s.entropy, s.symbol_bits)),
        s.exponent_entropy
            ? Cell(*s.exponent_entropy, fmt::format("{:.2f} of {}", *s.exponent_entropy, s.exponent_bits))
            : Cell(kNone, ""),
        number_cell(100 * s.entropy_share()),
        outlier_cell(tensor.rows),
        outlier_cell(tensor.columns)};
    for (size_t form = 0; form < analysis.forms.size(); ++form)
      row.push_back(number_cell(error_in(tensor, form), 3));
    if (analysis.calibrated) {
      for (size_t form = 0; form < analysis.forms.size(); ++form)
        row.push_back(number_cell(output_error_in(tensor, form), 3));
      const bool there = tensor.inputs.has_value();
      row.push_back(number_cell(there ? tensor.inputs->largest : kNone));
      row.push_back(number_cell(there ? static_cast<double>(tensor.inputs->beyond_six) : kNone));
      row.push_back(there ? outlier_cell(tensor.inputs->channels) : Cell(kNone, ""));
    }
    table.rows.push_back(std::move(row));
  }
  page.heading("Tensors");
  page.table(table);
}

}  // namespace

Page analysis_page(const std::string& title, const std::string& subtitle,
                   const CheckpointAnalysis& analysis) {
  Page page(title, subtitle);
  add_tiles(page, analysis);
  add_forms(page, analysis);
  add_heat_maps(page, analysis);
  add_tensors(page, analysis);
  return page;
}

}  // namespace qkv
