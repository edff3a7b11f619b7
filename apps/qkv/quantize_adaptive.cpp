#include "quantize_adaptive.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "console.h"
#include "qkv/compress/allocation_report.h"
#include "qkv/core/error.h"
#include "qkv/core/progress.h"
#include "quantize_plan.h"

namespace qkv {
namespace {

// "3.8G", "500 MB", "1.5GiB": powers of 1000, or of 1024 with an i.
uint64_t parse_size(const std::string& text) {
  size_t end = 0;
  double value = 0;
  try {
    value = std::stod(text, &end);
  } catch (const std::exception&) {
    end = 0;
  }
  std::string unit = text.substr(end);
  std::erase(unit, ' ');
  for (char& c : unit) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  if (unit.ends_with('b')) unit.pop_back();
  static const std::map<std::string, double> units = {{"", 1},        {"k", 1e3},    {"m", 1e6},
                                                      {"g", 1e9},     {"t", 1e12},   {"ki", 0x1p10},
                                                      {"mi", 0x1p20}, {"gi", 0x1p30}};
  const auto factor = units.find(unit);
  const double bytes = factor == units.end() ? 0 : value * factor->second;
  require(end > 0 && bytes >= 1 && bytes < 0x1p62,
          "--target-size: expected a size such as 3.8G or 900MiB, found '{}'", text);
  return static_cast<uint64_t>(bytes);
}

std::vector<DType> parse_types(const std::string& list) {
  std::vector<DType> types;
  for (size_t begin = 0; begin < list.size();) {
    const size_t end = std::min(list.find(',', begin), list.size());
    types.push_back(tensor_type(list.substr(begin, end - begin), "--candidate-types"));
    begin = end + 1;
  }
  return types;
}

AdaptiveOptions options_of(const AdaptiveCommand& command) {
  const AdaptiveFlags& flags = *command.flags;
  AdaptiveOptions options;
  require(flags.size.empty() || flags.bits == 0,
          "expected one of --target-size and --target-bpw, found both");
  if (!flags.size.empty()) {
    options.file_bytes = parse_size(flags.size);
  } else if (flags.bits > 0) {
    options.bits_per_weight = flags.bits;
  } else {
    options.max_divergence = command.max_kld;
  }
  options.types = parse_types(flags.types);
  options.tokens = flags.tokens;
  options.seed = static_cast<uint64_t>(flags.seed);
  options.measured_points = flags.curve_points;
  using Probe = AdaptiveOptions::Probe;
  options.probe = flags.probe == "on"    ? Probe::always
                  : flags.probe == "off" ? Probe::never
                                         : Probe::automatic;
  return options;
}

AdaptiveModel parent_of(const AdaptiveCommand& command, const CostMeter* meter, const std::string& text) {
  AdaptiveModel parent;
  if (meter == nullptr) return parent;
  if (!command.calibration.empty()) {
    parent.model = dynamic_cast<Decoder*>(meter->parent().model.get());
    require(parent.model != nullptr && parent.model->info().causal, "{}: expected a language model, found {}",
            command.input, meter->parent().model->info().architecture);
    parent.tokenizer = meter->parent().tokenizer.get();
    parent.calibration = text;
  }
  parent.measure = [meter](const Model& model) { return meter->measure(model); };
  return parent;
}

// Kinds of matrices with the types that they got: "attn_v         q5_k x 4, q6_k x 2".
void print_kinds(const AdaptiveResult& result) {
  std::map<std::string, std::map<DType, int>> kinds;
  std::map<std::string, double> costs;
  for (size_t i = 0; i < result.costs.size(); ++i) {
    const TypeCost& chosen = result.costs[i].types[result.allocation.choices[i]];
    const std::string kind = matrix_kind(result.plan.tensors[result.costs[i].tensor].name);
    ++kinds[kind][chosen.type];
    costs[kind] += chosen.cost;
  }
  const char* heading = result.by_divergence ? "predicted KL" : "error";
  print_out(fmt::format("{:<20} {:>14}   types\n", "tensors", heading));
  for (const auto& [kind, types] : kinds) {
    std::string list;
    for (const auto& [type, count] : types)
      list += fmt::format("{}{} x {}", list.empty() ? "" : ", ", name(type), count);
    print_out(fmt::format("{:<20} {:>14.3g}   {}\n", kind, costs[kind], list));
  }
}

void print_allocation(const AdaptiveResult& result) {
  const Allocation& allocation = result.allocation;
  print_kinds(result);
  if (!result.by_divergence) {
    print_note(
        "note: without --calibrate TEXT types are chosen by the error of the values, not by what it does to "
        "the model's "
        "predictions");
  }
  print_out(fmt::format("{} {:.4g}{}", result.by_divergence ? "predicted KL" : "sum of relative errors",
                        allocation.predicted,
                        allocation.exact ? "; no choice of this size has less"
                                         : fmt::format("; at best {:.4g}", allocation.bound)));
  if (result.probes.tensors > 0) {
    print_out(fmt::format(
        "; {} tensors probed one at a time: measured/predicted {:.2f} in the median, correlation {:.3f}",
        result.probes.tensors, result.probes.median_ratio, result.probes.correlation));
  }
  if (result.by_divergence && result.measured && allocation.predicted > 0)
    print_out(fmt::format("; together measured/predicted {:.2f}",
                          result.measured->kl.value / allocation.predicted));
  print_out("\n");
}

}  // namespace

void AdaptiveFlags::add_to(CLI::App& verb) {
  constexpr const char* kGroup = "Adaptive allocation";
  verb.add_option("--target-size", size,
                  "The best file of at most this size, for example 3.8G or 900MiB: every matrix gets a type "
                  "by what it "
                  "costs, as measured with --calibrate")
      ->type_name("SIZE")
      ->group(kGroup);
  verb.add_option("--target-bpw", bits, "The same for so many bits per weight, for example 4.25")
      ->check(CLI::PositiveNumber)
      ->type_name("BITS")
      ->group(kGroup);
  verb.add_option("--candidate-types", types,
                  "Types to choose from, with commas (default: all of 2 to 16 bits that fit)")
      ->type_name("LIST")
      ->group(kGroup);
  verb.add_option("--sensitivity-tokens", tokens,
                  "Of the calibration text, for sensitivities (default: 4096)")
      ->check(CLI::Range(int64_t{2}, int64_t{1} << 24))
      ->group(kGroup);
  verb.add_option(
          "--probe", probe,
          "Also change every tensor by itself and measure: auto (where that is quick; the default), on, off")
      ->check(CLI::IsMember({"auto", "on", "off"}))
      ->group(kGroup);
  verb.add_option("--curve-points", curve_points,
                  "Measure so many other sizes too, for the report (default: 0)")
      ->group(kGroup);
  verb.add_option("--seed", seed, "Of the targets that sensitivities are measured with")
      ->check(CLI::NonNegativeNumber)
      ->group(kGroup);
  verb.add_option("--report", report, "Write an HTML page: the trade-off, and what each tensor got and why")
      ->type_name("FILE")
      ->group(kGroup);
}

void quantize_adaptively(const AdaptiveCommand& command, const Checkpoint& source,
                         const QuantizeOptions& quantize, const CostMeter* meter) {
  const AdaptiveOptions options = options_of(command);
  require(command.dry_run || command.output.ends_with(".gguf"),
          "OUT: expected a name that ends with .gguf, found '{}': sizes are those of GGUF files, which 'qkv "
          "convert' turns "
          "into .qkv",
          command.output);
  const std::string text = command.calibration.empty() ? "" : read_input(command.calibration);
  const auto begin = std::chrono::steady_clock::now();
  std::string stage_now;
  std::optional<Progress> progress;
  AdaptiveResult result = allocate_types(source, quantize, options, parent_of(command, meter, text),
                                         [&](const char* stage, size_t done, size_t total) {
                                           if (stage_now != stage) {
                                             progress.reset();
                                             progress.emplace(stage, total, "");
                                             stage_now = stage;
                                           }
                                           progress->update(done);
                                         });
  progress.reset();
  const std::string measured_on = command.evaluation.empty() ? command.calibration : command.evaluation;
  if (!command.json) {
    print_plan(result.plan);
    print_allocation(result);
    if (result.measured) print_out(cost_lines(*result.measured, measured_on));
  }
  if (!command.flags->report.empty()) {
    write_allocation_report(
        command.flags->report, result,
        {command.input, command.output, command.calibration, measured_on, quantize.importance_name});
  }
  if (command.max_kld > 0 && result.measured && !(result.measured->kl.value <= command.max_kld)) {
    print_note(fmt::format("the mean KL divergence, {:.5g}, is above --max-kld {:.5g}: nothing is written",
                           result.measured->kl.value, command.max_kld));
    throw CLI::RuntimeError(1);
  }
  if (!command.dry_run)
    write_quantized(source, result.plan, quantize, command.output, {}, std::move(result.tensors));
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  if (command.json) {
    Json json = plan_json(command.output, result.plan);
    json["allocation"] = allocation_json(result);
    if (result.measured) json["cost"] = cost_json(*result.measured, measured_on);
    json["seconds"] = seconds;
    print_out(dump_json(json) + "\n");
    return;
  }
  print_out(fmt::format("{}: {} bytes ({}, {:.3f} bits per weight) from {} in {:.1f} s; {}\n",
                        command.dry_run ? "would write" : command.output, result.allocation.file_bytes,
                        format_bytes(result.allocation.file_bytes), result.plan.bits_per_weight(),
                        format_bytes(result.plan.bytes_from), seconds, memory_sentence()));
}

}  // namespace qkv
