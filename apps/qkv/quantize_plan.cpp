#include "quantize_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "console.h"
#include "qkv/core/progress.h"

namespace qkv {
namespace {

struct TypeTotal {
  int64_t tensors = 0, weights = 0;
  uint64_t bytes = 0;
};

std::map<DType, TypeTotal> totals_of(const QuantizePlan& plan) {
  std::map<DType, TypeTotal> totals;
  for (const auto& tensor : plan.tensors) {
    TypeTotal& total = totals[tensor.to];
    ++total.tensors;
    total.weights += tensor.shape.elements();
    total.bytes += tensor.bytes_to;
  }
  return totals;
}

// One line for each reason, with the tensors that it is of.
void print_exceptions(const QuantizePlan& plan) {
  std::map<std::string, std::vector<std::string>> tensors;
  for (const auto& tensor : plan.tensors) {
    if (!tensor.note.empty()) tensors[tensor.note].push_back(tensor.name);
  }
  for (const auto& [reason, names] : tensors) {
    const std::string others = names.size() > 1 ? fmt::format(" and {} others", names.size() - 1) : "";
    print_note(fmt::format("note: {} ({}{})", reason, names.front(), others));
  }
}

void print_table(const QuantizePlan& plan) {
  print_out(fmt::format("{:<8} {:>8} {:>16} {:>12} {:>16}\n", "type", "tensors", "weights", "size",
                        "bits per weight"));
  for (const auto& [type, total] : totals_of(plan)) {
    print_out(fmt::format(
        "{:<8} {:>8} {:>16} {:>12} {:>16.3f}\n", name(type), total.tensors, total.weights,
        format_bytes(total.bytes),
        8.0 * static_cast<double>(total.bytes) / static_cast<double>(std::max<int64_t>(1, total.weights))));
  }
  print_out(fmt::format("{:<8} {:>8} {:>16} {:>12} {:>16.3f}\n", "all", plan.tensors.size(), plan.elements,
                        format_bytes(plan.bytes_to), plan.bits_per_weight()));
}

}  // namespace

void print_plan(const QuantizePlan& plan) {
  for (const auto& note : plan.conversion.notes) print_note("note: " + note);
  print_exceptions(plan);
  print_table(plan);
}

Json plan_json(const std::string& output, const QuantizePlan& plan) {
  Json types = Json::object();
  for (const auto& [type, total] : totals_of(plan)) {
    types[std::string(name(type))] = {
        {"tensors", total.tensors}, {"weights", total.weights}, {"bytes", total.bytes}};
  }
  Json tensors = Json::array();
  for (const auto& tensor : plan.tensors) {
    Json entry = {{"name", tensor.name},   {"shape", tensor.shape.dims()}, {"from", name(tensor.from)},
                  {"to", name(tensor.to)}, {"bytes", tensor.bytes_to},     {"importances", tensor.weighted}};
    if (!tensor.note.empty()) entry["note"] = tensor.note;
    tensors.push_back(std::move(entry));
  }
  return {{"output", output},         {"type", traits(plan.type).name},
          {"weights", plan.elements}, {"bytes_from", plan.bytes_from},
          {"bytes", plan.bytes_to},   {"bits_per_weight", plan.bits_per_weight()},
          {"types", types},           {"tensors", tensors}};
}

}  // namespace qkv
