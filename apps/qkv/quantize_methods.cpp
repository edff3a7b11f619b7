#include "quantize_methods.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <optional>

#include "compare_models.h"
#include "console.h"
#include "qkv/core/error.h"
#include "qkv/core/progress.h"

namespace qkv {
namespace {

WeightQuantizeOptions options_of(const MethodCommand& command) {
  WeightQuantizeOptions options = command.options;
  const WeightMethodTraits& traits = weight_method_from_name(command.method);
  options.rounding.method = traits.method;
  require(command.group == -1 || command.group > 0,
          "--group-size: expected at least 1, or -1 for one scale per row, found {}", command.group);
  options.rounding.group = std::max<int64_t>(command.group, 0);
  options.rounding.clip = !command.no_clip;
  options.rounding.nested_scales = !command.no_nested_scales;
  require(!traits.calibrated || !command.calibrate.empty(),
          "--method {}: expected a text to calibrate with (--calibrate FILE), found none", traits.name);
  if (traits.calibrated) {
    options.text = read_input(command.calibrate);
    require_utf8(options.text, command.calibrate);
  }
  return options;
}

double mean_error(const WeightQuantizeReport& report) {
  double sum = 0;
  for (const auto& layer : report.layers) sum += layer.relative_error;
  return report.layers.empty() ? 0 : sum / static_cast<double>(report.layers.size());
}

Json report_json(const MethodCommand& command, const std::string& output, const WeightQuantizeReport& report,
                 double seconds) {
  Json layers = Json::array();
  for (const auto& layer : report.layers)
    layers.push_back({{"name", layer.name}, {"relative_error", layer.relative_error}});
  return {{"output", output},
          {"method", command.method},
          {"bytes_before", report.bytes_before},
          {"bytes", report.bytes},
          {"quantized", report.quantized},
          {"kept", report.kept},
          {"seconds", seconds},
          {"layers", layers},
          {"notes", report.notes}};
}

}  // namespace

std::shared_ptr<MethodCommand> add_method_options(CLI::App& verb) {
  const auto command = std::make_shared<MethodCommand>();
  RoundingOptions& rounding = command->options.rounding;
  CalibrationOptions& calibration = command->options.calibration;
  std::string methods = "Round linear layers by one of these, into a Hugging Face directory or .qkv file (gptq: also .gguf):";
  for (const auto& method : weight_methods()) methods += fmt::format(" {}: {};", method.name, method.about);
  methods.pop_back();
  constexpr const char* kGroup = "Methods";
  verb.add_option("--method", command->method, methods)->group(kGroup);
  verb.add_option("--bits", rounding.bits, "Of each weight (rtn, gptq)")->group(kGroup);
  verb.add_option("--group-size", command->group,
                  "Inputs that share a scale (rtn, gptq, awq); -1: one scale per row")
      ->group(kGroup);
  verb.add_flag("--asymmetric", rounding.asymmetric, "With zero points (rtn, gptq)")->group(kGroup);
  verb.add_flag("--act-order", rounding.act_order, "Inputs with the largest activations first (gptq)")
      ->group(kGroup);
  verb.add_flag("--static-groups", rounding.static_groups,
                "Groups keep their neighbours under --act-order (gptq)")
      ->group(kGroup);
  verb.add_option("--damping", rounding.damping, "Share of the mean added to the Hessian's diagonal (gptq)")
      ->group(kGroup);
  verb.add_option("--strength", rounding.strength,
                  "How much of the outliers moves into the weights, 0 to 1 (smoothquant)")
      ->group(kGroup);
  verb.add_flag("--no-clip", command->no_clip, "Without the search for limits of weights (awq)")
      ->group(kGroup);
  verb.add_flag("--no-double-quant", command->no_nested_scales, "Scales in f32 (nf4, fp4)")->group(kGroup);
  verb.add_option("--calibrate-context", calibration.context, "Tokens per calibration sequence")
      ->check(CLI::PositiveNumber)
      ->group(kGroup);
  verb.add_option("--calibrate-sequences", calibration.sequences,
                  "At most so many sequences, spread over the text")
      ->check(CLI::PositiveNumber)
      ->group(kGroup);
  verb.add_option("--eval", command->eval, "A text to compare the result with IN on")
      ->type_name("FILE")
      ->group(kGroup);
  verb.add_option(
          "--max-kld", command->max_kld,
          "Largest mean KL divergence, on --eval's or --calibrate's text: without --type, --target-size and "
          "--method the smallest file that meets it; otherwise exit code 1 if it is above, and with no "
          "--method "
          "nothing is written")
      ->check(CLI::NonNegativeNumber)
      ->group(kGroup);
  return command;
}

bool run_method(const MethodCommand& command, const std::string& input, const std::string& output,
                bool json) {
  if (command.method.empty()) return false;
  require(!output.empty(), "expected OUT, a directory or a name that ends with .qkv or .gguf");
  WeightQuantizeOptions options = options_of(command);
  std::optional<Progress> progress;
  options.progress = [&](size_t layer, size_t layers) {
    if (!progress) progress.emplace(command.method, layers, "layers");
    progress->update(layer);
  };
  const auto begin = std::chrono::steady_clock::now();
  const WeightQuantizeReport report = quantize_weights(input, output, options);
  progress.reset();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  std::optional<Divergence> cost;
  if (!command.eval.empty()) cost = compare_models(output, input, command.eval, options.calibration.context);
  if (json) {
    Json result = report_json(command, output, report, seconds);
    if (cost) result["cost"] = comparison_json(*cost);
    print_out(dump_json(result) + "\n");
  } else {
    for (const auto& note : report.notes) print_note("note: " + note);
    print_out(fmt::format(
        "{}: {}, {} matrices, {} from {} in {:.1f} s; mean relative error of their outputs {:.3g}; {}\n",
        output, command.method, report.quantized, format_bytes(report.bytes),
        format_bytes(report.bytes_before), seconds, mean_error(report), memory_sentence()));
    if (cost) print_out(comparison_sentence(*cost) + "\n");
  }
  if (cost && command.max_kld > 0 && !(cost->kl.value <= command.max_kld)) {
    print_note(fmt::format("the mean KL divergence, {:.5g}, is above --max-kld {:.5g}", cost->kl.value,
                           command.max_kld));
    throw CLI::RuntimeError(1);
  }
  return true;
}

}  // namespace qkv
