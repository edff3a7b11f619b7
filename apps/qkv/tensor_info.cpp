#include "tensor_info.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "console.h"
#include "qkv/core/error.h"
#include "qkv/core/progress.h"
#include "qkv/core/utf8.h"
#include "qkv/formats/content.h"

namespace qkv {
namespace {

Json statistics_json(const TensorStatistics& s) {
  Json json = {{"min", s.minimum},
               {"max", s.maximum},
               {"mean", s.mean},
               {"std", s.deviation},
               {"kurtosis", s.kurtosis},
               {"zeros", s.zeros},
               {"nan", s.nans},
               {"inf", s.infinities},
               {"entropy", s.entropy},
               {"symbol_bits", s.symbol_bits},
               {"entropy_share", s.entropy_share()}};
  if (!s.plane_entropy.empty()) json["plane_entropy"] = s.plane_entropy;
  if (s.exponent_entropy) {
    json["exponent_entropy"] = *s.exponent_entropy;
    json["exponent_bits"] = s.exponent_bits;
  }
  return json;
}

Json channels_json(const ChannelOutliers& channels) {
  Json largest = Json::array();
  for (const auto& channel : channels.largest)
    largest.push_back({{"index", channel.index}, {"rms", channel.size}});
  return {{"channels", channels.channels},
          {"zero", channels.zero},
          {"median_rms", channels.median},
          {"outliers", channels.outliers},
          {"largest", std::move(largest)}};
}

Json error_json(const FormError& error) {
  Json json = {{"bits_per_weight", error.bits_per_weight}};
  if (!error.note.empty()) {
    json["note"] = error.note;
    return json;
  }
  json["relative"] = error.error.relative();
  if (error.error.output_energy > 0) json["relative_output"] = error.error.relative_output();
  return json;
}

Json tensor_json(const TensorAnalysis& tensor, const std::vector<std::string>& forms) {
  Json json = {{"name", replace_invalid_utf8(tensor.entry.name)},
               {"type", name(tensor.entry.type)},
               {"shape", tensor.entry.shape.dims()},
               {"bytes", tensor.entry.bytes},
               {"role", replace_invalid_utf8(tensor.place.role)},
               {"statistics", statistics_json(tensor.statistics)}};
  if (tensor.place.layer) json["layer"] = *tensor.place.layer;
  const ValueHistogram& histogram = tensor.histogram;
  json["histogram"] = {{"from", histogram.from},
                       {"to", histogram.to},
                       {"counts", histogram.counts},
                       {"outside", histogram.outside}};
  if (tensor.rows.channels > 0) {
    json["rows"] = channels_json(tensor.rows);
    json["columns"] = channels_json(tensor.columns);
  }
  for (size_t form = 0; form < tensor.errors.size(); ++form)
    json["errors"][forms[form]] = error_json(tensor.errors[form]);
  if (tensor.inputs) {
    json["inputs"] = {{"tokens", tensor.inputs->tokens},
                      {"largest", tensor.inputs->largest},
                      {"beyond_six", tensor.inputs->beyond_six},
                      {"channels", channels_json(tensor.inputs->channels)}};
  }
  return json;
}

std::string outlier_text(const ChannelOutliers& rows, const ChannelOutliers& columns) {
  return rows.channels > 0 ? fmt::format("{} / {}", rows.outliers, columns.outliers) : "";
}

// "3.24 %" of the error that stands in the column, and of the outputs behind it.
std::string error_text(const FormError& error, bool calibrated) {
  if (!error.note.empty()) return "-";
  std::string text = fmt::format("{:.3g} %", 100 * error.error.relative());
  if (calibrated && error.error.output_energy > 0)
    text += fmt::format(" / {:.3g} %", 100 * error.error.relative_output());
  return text;
}

}  // namespace

CheckpointAnalysis analyze_with_progress(const Checkpoint& checkpoint, const TensorInfoRequest& request) {
  AnalysisOptions options;
  options.forms = rounded_forms(request.error_types);
  options.calibration = request.calibration;
  if (!request.calibrate.empty()) {
    options.text = read_input(request.calibrate);
    require_utf8(options.text, request.calibrate);
    require(!options.text.empty(), "{}: expected a text to calibrate with, found nothing", request.calibrate);
  }
  constexpr uint64_t kMega = 1'000'000;
  std::optional<Progress> layers_done, bytes_read;
  options.calibrated = [&](size_t layer, size_t layers) {
    if (!layers_done) layers_done.emplace("calibrating", layers, "layers");
    layers_done->update(layer);
  };
  options.read = [&](uint64_t bytes) {
    layers_done.reset();
    if (!bytes_read) bytes_read.emplace("reading", checkpoint.total_bytes() / kMega, "MB");
    bytes_read->update(bytes / kMega);
  };
  return analyze_checkpoint(checkpoint, options);
}

Json tensors_json(const CheckpointAnalysis& analysis) {
  Json tensors = Json::array();
  for (const auto& tensor : analysis.tensors) tensors.push_back(tensor_json(tensor, analysis.forms));
  return tensors;
}

void print_tensors(const CheckpointAnalysis& analysis) {
  size_t width = 6;
  for (const auto& tensor : analysis.tensors) width = std::max(width, shown(tensor.entry.name).size());
  width = std::min<size_t>(width, 64);
  const int error_width = analysis.calibrated ? 18 : 9;
  std::string head = fmt::format(
      "\n{:<{}} {:<7} {:<18} {:>9} {:>10} {:>10} {:>10} {:>10} {:>9} {:>7} {:>14} {:>13} {:>7} {:>9}",
      "tensor", width, "type", "shape", "size", "min", "max", "mean", "std", "kurtosis", "zeros", "entropy",
      "exponents", "limit", "outliers");
  if (analysis.calibrated) head += fmt::format(" {:>9}", "input");
  for (const auto& form : analysis.forms) head += fmt::format(" {:>{}}", form, error_width);
  print_out(head + "\n");
  for (const auto& tensor : analysis.tensors) {
    const TensorStatistics& s = tensor.statistics;
    const auto number = [](double value) { return fmt::format("{:.4g}", value); };
    std::string row = fmt::format(
        "{:<{}} {:<7} {:<18} {:>9} {:>10} {:>10} {:>10} {:>10} {:>9} {:>6.2f}% {:>14} {:>13} {:>6.1f}% {:>9}",
        shown(tensor.entry.name), width, name(tensor.entry.type), tensor.entry.shape.str(),
        format_bytes(tensor.entry.bytes), number(s.minimum), number(s.maximum), number(s.mean),
        number(s.deviation), number(s.kurtosis),
        100.0 * static_cast<double>(s.zeros) / static_cast<double>(std::max<int64_t>(1, s.elements)),
        fmt::format("{:.2f} of {}", s.entropy, s.symbol_bits),
        s.exponent_entropy ? fmt::format("{:.2f} of {}", *s.exponent_entropy, s.exponent_bits) : "",
        100 * s.entropy_share(), outlier_text(tensor.rows, tensor.columns));
    if (analysis.calibrated)
      row += fmt::format(" {:>9}", tensor.inputs ? fmt::format("{:.3g}", tensor.inputs->largest) : "");
    for (const auto& error : tensor.errors)
      row += fmt::format(" {:>{}}", error_text(error, analysis.calibrated), error_width);
    if (s.nans > 0) row += fmt::format("  {} NaN", s.nans);
    if (s.infinities > 0) row += fmt::format("  {} infinite", s.infinities);
    print_out(row + "\n");
  }
  print_out(
      "limit: what order-0 coding of the stored bytes' planes needs; outliers: rows / columns whose norm is "
      "far "
      "beyond the others'\n");
  if (!analysis.forms.empty())
    print_out(analysis.calibrated ? "types: relative error of the weights / of the layer's outputs\n"
                                  : "types: relative error of the weights\n");
}

}  // namespace qkv
