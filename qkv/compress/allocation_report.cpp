#include "qkv/compress/allocation_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "qkv/core/progress.h"
#include "qkv/report/page.h"

namespace qkv {
namespace {

constexpr double kMega = 1e6;

double bits(const TypeCost& type, const QuantizedTensor& tensor) {
  return 8.0 * static_cast<double>(type.bytes) /
         static_cast<double>(std::max<int64_t>(1, tensor.shape.elements()));
}

// -1 for what is in no layer.
int64_t layer_number(const std::string& tensor) {
  constexpr std::string_view kPrefix = "blk.";
  int64_t layer = -1;
  if (tensor.starts_with(kPrefix))
    std::from_chars(tensor.data() + kPrefix.size(), tensor.data() + tensor.size(), layer);
  return layer;
}

// The nearest smaller type, and the nearest larger one that costs less: what was decided between.
struct Neighbours {
  const TypeCost *smaller = nullptr, *larger = nullptr;
};

Neighbours neighbours_of(const TensorCosts& costs, size_t choice) {
  Neighbours neighbours;
  const TypeCost& chosen = costs.types[choice];
  for (const TypeCost& type : costs.types) {
    if (type.bytes < chosen.bytes && (neighbours.smaller == nullptr || type.cost < neighbours.smaller->cost))
      neighbours.smaller = &type;
    if (type.bytes > chosen.bytes && type.cost < chosen.cost &&
        (neighbours.larger == nullptr || type.bytes < neighbours.larger->bytes))
      neighbours.larger = &type;
  }
  return neighbours;
}

std::string why(const TensorCosts& costs, size_t choice) {
  if (costs.types.size() == 1) return "its type was given";
  const TypeCost& chosen = costs.types[choice];
  const auto [smaller, larger] = neighbours_of(costs, choice);
  std::string text;
  if (smaller != nullptr) {
    text = fmt::format("{} would save {} and cost {:.2g} more", name(smaller->type),
                       format_bytes(chosen.bytes - smaller->bytes), smaller->cost - chosen.cost);
  }
  if (larger != nullptr) {
    text +=
        fmt::format("{}{} would take {} more and save {:.2g}", text.empty() ? "" : "; ", name(larger->type),
                    format_bytes(larger->bytes - chosen.bytes), chosen.cost - larger->cost);
  }
  return text;
}

LineChart curve_chart(const AdaptiveResult& result) {
  LineChart chart;
  chart.title = result.by_divergence ? "Size against KL divergence" : "Size against error";
  chart.note = "The best choice of types for every size; the marker is this file.";
  chart.x = {.label = "file size (MB)"};
  chart.y = {.label = result.by_divergence ? "KL divergence (nats a token)" : "sum of relative errors",
             .log = true};
  Series predicted{.name = "predicted", .style = Series::Style::line}, measured{.name = "measured"};
  measured.style = Series::Style::points;
  for (const CurvePoint& point : result.curve) {
    const double size = static_cast<double>(point.file_bytes) / kMega;
    if (point.predicted > 0) {
      predicted.x.push_back(size);
      predicted.y.push_back(point.predicted);
    }
    if (point.measured && point.measured->kl.value > 0) {
      measured.x.push_back(size);
      measured.y.push_back(point.measured->kl.value);
    }
  }
  const double size = static_cast<double>(result.allocation.file_bytes) / kMega;
  if (result.by_divergence && result.measured && result.measured->kl.value > 0) {
    measured.x.push_back(size);
    measured.y.push_back(result.measured->kl.value);
  }
  chart.series.push_back(std::move(predicted));
  if (!measured.x.empty()) chart.series.push_back(std::move(measured));
  chart.markers.push_back({size, "this file"});
  return chart;
}

HeatMap bits_map(const AdaptiveResult& result) {
  HeatMap map;
  map.title = "Bits per weight";
  map.note = "By layer and kind of matrix.";
  map.value_label = "bits per weight";
  std::map<int64_t, std::map<std::string, double>> layers;
  for (size_t i = 0; i < result.costs.size(); ++i) {
    const QuantizedTensor& tensor = result.plan.tensors[result.costs[i].tensor];
    const int64_t layer = layer_number(tensor.name);
    if (layer < 0) continue;
    const std::string kind = matrix_kind(tensor.name);
    if (std::find(map.columns.begin(), map.columns.end(), kind) == map.columns.end())
      map.columns.push_back(kind);
    layers[layer][kind] = bits(result.costs[i].types[result.allocation.choices[i]], tensor);
  }
  for (const auto& [layer, kinds] : layers) {
    map.rows.push_back(fmt::format("{}", layer));
    for (const std::string& kind : map.columns) {
      const auto found = kinds.find(kind);
      map.values.push_back(found == kinds.end() ? std::nan("") : found->second);
    }
  }
  return map;
}

Table tensor_table(const AdaptiveResult& result) {
  Table table;
  table.title = "Tensors";
  table.note = result.by_divergence ? "Cost: predicted KL divergence, in nats a token, from this tensor "
                                      "alone. Probed: the same as measured, of "
                                      "the type in brackets."
                                    : "Cost: squared error relative to the squares of the values.";
  table.columns = {{"tensor"},     {"type"},          {"bits", true},   {"bytes", true},
                   {"cost", true}, {"share %", true}, {"probed", true}, {"why not another"}};
  for (size_t i = 0; i < result.costs.size(); ++i) {
    const TensorCosts& costs = result.costs[i];
    const size_t choice = result.allocation.choices[i];
    const TypeCost& chosen = costs.types[choice];
    const QuantizedTensor& tensor = result.plan.tensors[costs.tensor];
    const double share =
        result.allocation.predicted > 0 ? 100 * chosen.cost / result.allocation.predicted : 0;
    table.rows.push_back(
        {tensor.name, std::string(name(chosen.type)), number_cell(bits(chosen, tensor)),
         Cell(static_cast<double>(chosen.bytes), fmt::format("{}", chosen.bytes)),
         Cell(chosen.cost, fmt::format("{:.3g}", chosen.cost)), Cell(share, fmt::format("{:.1f}", share)),
         costs.probed < 0 ? Cell("")
                          : Cell(costs.probed, fmt::format("{:.3g} ({})", costs.probed,
                                                           name(costs.types[costs.probed_type].type))),
         why(costs, choice)});
  }
  return table;
}

std::string explanation(const AdaptiveResult& result, const AllocationTexts& texts) {
  if (!result.by_divergence) {
    return "There was no calibration text, so costs are squared errors of the values, relative to each "
           "tensor's squares and "
           "weighted by importances where there are some. They say which type is better for a tensor; that "
           "the same relative "
           "error costs as much in every tensor is an assumption.";
  }
  std::string text = fmt::format(
      "Costs are predicted KL divergences from the original in nats a token: for each tensor and type, in "
      "closed form from "
      "the errors of the values, the layer's inputs and the gradients of the model's predictions on {}.",
      texts.calibration);
  if (result.probes.tensors > 0) {
    text += fmt::format(
        " {} tensors were then changed one at a time and the divergence measured: it is {:.2f} times the "
        "predicted one in the "
        "median, with a correlation of {:.3f} between logarithms; costs are corrected by it.",
        result.probes.tensors, result.probes.median_ratio, result.probes.correlation);
  }
  return text;
}

Json divergence_json(const Divergence& divergence) {
  return {{"kl", divergence.kl.value},
          {"low", divergence.kl.low},
          {"high", divergence.kl.high},
          {"perplexity", divergence.perplexity.value},
          {"same_top", divergence.same_top.value}};
}

}  // namespace

std::string matrix_kind(const std::string& tensor) {
  std::string kind = tensor;
  if (layer_number(tensor) >= 0) kind = tensor.substr(tensor.find('.', 4) + 1);
  constexpr std::string_view kWeight = ".weight";
  if (kind.ends_with(kWeight)) kind.resize(kind.size() - kWeight.size());
  return kind;
}

void write_allocation_report(const std::string& path, const AdaptiveResult& result,
                             const AllocationTexts& texts) {
  Page page(fmt::format("Types for {}", texts.model), texts.output);
  std::vector<Tile> tiles = {
      {"size", format_bytes(result.allocation.file_bytes),
       fmt::format("{} bytes", result.allocation.file_bytes)},
      {"bits per weight", fmt::format("{:.3f}", result.plan.bits_per_weight()),
       fmt::format("of {} weights", result.plan.elements)},
      {result.by_divergence ? "predicted KL" : "sum of relative errors",
       fmt::format("{:.4g}", result.allocation.predicted),
       result.allocation.exact ? "no choice of this size costs less"
                               : fmt::format("at least {:.4g}", result.allocation.bound)}};
  if (result.measured) {
    const Divergence& cost = *result.measured;
    tiles.push_back({"measured KL", fmt::format("{:.4g}", cost.kl.value),
                     fmt::format("95 %: {:.4g} to {:.4g}", cost.kl.low, cost.kl.high)});
    tiles.push_back({"perplexity", fmt::format("{:.4g}", cost.perplexity.value),
                     fmt::format("original {:.4g}", cost.reference_perplexity.value)});
    tiles.push_back({"same top token", fmt::format("{:.2f} %", 100 * cost.same_top.value),
                     fmt::format("of {} tokens", cost.tokens)});
  }
  page.tiles(tiles);
  page.paragraph(explanation(result, texts));
  page.chart(curve_chart(result));
  if (const HeatMap map = bits_map(result); !map.rows.empty()) page.chart(map);
  page.table(tensor_table(result));
  page.key_values("Sources",
                  {{"model", texts.model},
                   {"calibration text", texts.calibration.empty() ? "none" : texts.calibration},
                   {"measured on", texts.evaluation.empty() ? "nothing" : texts.evaluation},
                   {"importances", texts.importance.empty() ? "none" : texts.importance},
                   {"a megabyte more would save", fmt::format("{:.3g}", result.allocation.price * kMega)}});
  page.write(path);
}

Json allocation_json(const AdaptiveResult& result) {
  Json curve = Json::array(), tensors = Json::array();
  for (const CurvePoint& point : result.curve) {
    Json entry = {{"bytes", point.file_bytes}, {"predicted", point.predicted}};
    if (point.measured) entry["measured"] = divergence_json(*point.measured);
    curve.push_back(std::move(entry));
  }
  for (size_t i = 0; i < result.costs.size(); ++i) {
    const TensorCosts& costs = result.costs[i];
    const TypeCost& chosen = costs.types[result.allocation.choices[i]];
    Json types = Json::array();
    for (const TypeCost& type : costs.types)
      types.push_back(
          {{"type", name(type.type)}, {"bytes", type.bytes}, {"error", type.error}, {"cost", type.cost}});
    Json entry = {{"name", result.plan.tensors[costs.tensor].name},
                  {"type", name(chosen.type)},
                  {"bytes", chosen.bytes},
                  {"cost", chosen.cost},
                  {"why", why(costs, result.allocation.choices[i])}};
    if (costs.probed >= 0) {
      entry["probed"] = {{"type", name(costs.types[costs.probed_type].type)},
                         {"predicted", costs.predicted},
                         {"measured", costs.probed}};
    }
    entry["types"] = std::move(types);
    tensors.push_back(std::move(entry));
  }
  Json json = {{"bytes", result.allocation.file_bytes},
               {"costs", result.by_divergence ? "KL divergence, nats a token" : "relative squared error"},
               {"predicted", result.allocation.predicted},
               {"bound", result.allocation.bound},
               {"exact", result.allocation.exact},
               {"price_per_byte", result.allocation.price},
               {"curve", std::move(curve)},
               {"tensors", std::move(tensors)}};
  if (result.probes.tensors > 0) {
    json["probes"] = {{"tensors", result.probes.tensors},
                      {"correlation", result.probes.correlation},
                      {"median_ratio", result.probes.median_ratio}};
  }
  if (result.measured) json["measured"] = divergence_json(*result.measured);
  return json;
}

}  // namespace qkv
