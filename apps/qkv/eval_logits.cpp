// qkv eval logits MODEL --ids-file ids.json [--out logits.safetensors] [--compare expected.safetensors]
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "adapter_flags.h"
#include "compute_type.h"
#include "console.h"
#include "eval_verbs.h"
#include "generation_flags.h"
#include "qkv/core/error.h"
#include "qkv/eval/logits.h"
#include "qkv/formats/safetensors.h"
#include "qkv/models/bundle.h"

namespace qkv {
namespace {

struct LogitsArguments {
  std::string model, ids, mask, out, compare, dtype = "f32", activations = "f32";
  double tolerance = 0;
  AdapterFlags adapters;
  bool json = false, ggml_gelu = false;
};

void write_outputs(const std::string& path, const NamedTensors& outputs) {
  std::vector<TensorEntry> entries;
  for (const auto& [name, tensor] : outputs)
    entries.push_back({.name = name, .type = tensor.dtype(), .shape = tensor.shape()});
  SafetensorsWriter writer(path, entries, TensorOrder::given);
  for (const auto& [name, tensor] : outputs) writer.write(name, tensor);
  writer.finish();
}

void print_comparisons(const std::vector<OutputComparison>& comparisons) {
  print_out(fmt::format("{:<20} {:>8} {:>11} {:>11} {:>11} {:>11} {:>9}\n", "output", "rows", "max diff",
                        "mean diff", "largest", "mean KL", "same top"));
  for (const auto& c : comparisons) {
    const bool logits = c.name.starts_with("logits");
    print_out(fmt::format("{:<20} {:>8} {:>11.3e} {:>11.3e} {:>11.4g} {:>11} {:>9}\n", c.name, c.rows,
                          c.max_difference, c.mean_difference, c.max_magnitude,
                          logits ? fmt::format("{:.3e}", c.mean_kl) : "-",
                          logits ? fmt::format("{:.2f}%", 100 * c.same_top) : "-"));
  }
}

void run_logits(const LogitsArguments& arguments) {
  require(!arguments.out.empty() || !arguments.compare.empty(),
          "expected --out, to write the outputs, or --compare, to check them; found neither");
  const DType type = compute_type(arguments.dtype);
  activations_from_name(arguments.activations);  // refused before a model is loaded
  LoadOptions options;
  options.tokenizer_required = false;
  options.adapters = arguments.adapters.requests();
  const auto rows = read_id_rows(arguments.ids);
  const auto mask =
      arguments.mask.empty() ? std::vector<std::vector<int32_t>>{} : read_mask_rows(arguments.mask, rows);
  const Bundle bundle = load_bundle(arguments.model, options);
  const NamedTensors outputs = compute_outputs(*bundle.model, rows, mask, type, arguments.ggml_gelu,
                                               activations_from_name(arguments.activations));
  if (!arguments.out.empty()) write_outputs(arguments.out, outputs);
  if (arguments.compare.empty()) return;
  const auto comparisons = compare_outputs(outputs, arguments.compare, mask);
  double worst = 0;
  for (const auto& c : comparisons) worst = std::max(worst, c.max_difference);
  if (arguments.json) {
    Json list = Json::array();
    for (const auto& c : comparisons) {
      Json entry = {{"name", c.name},
                    {"rows", c.rows},
                    {"max_difference", c.max_difference},
                    {"mean_difference", c.mean_difference},
                    {"max_magnitude", c.max_magnitude}};
      if (c.name.starts_with("logits")) entry.update({{"mean_kl", c.mean_kl}, {"same_top", c.same_top}});
      list.push_back(std::move(entry));
    }
    print_out(dump_json({{"model", arguments.model},
                         {"architecture", bundle.model->info().architecture},
                         {"outputs", list}}) +
              "\n");
  } else {
    print_comparisons(comparisons);
  }
  if (arguments.tolerance > 0 && !(worst <= arguments.tolerance)) {
    print_note(fmt::format("the largest difference, {:.3e}, is above the tolerance {:.3e}", worst,
                           arguments.tolerance));
    throw CLI::RuntimeError(1);
  }
}

}  // namespace

void add_eval_logits(CLI::App& eval) {
  auto arguments = std::make_shared<LogitsArguments>();
  CLI::App* command =
      eval.add_subcommand("logits", "Raw outputs for given token ids, and their distance from expected ones");
  command->footer(
      "Example:\n  qkv eval logits model.gguf --ids-file ids.json --out logits.safetensors --compare "
      "expected.safetensors\n\n"
      "Writes `logits` (rows, tokens, vocabulary), f32, or `logits.<i>` where rows differ in length; "
      "encoders write\n"
      "`last_hidden_state` and `mean_pooled`. With --tolerance, exit code 1 says that some value differs by "
      "more.");
  command->add_option("model", arguments->model, "model to run")->required();
  arguments->adapters.add_to(*command);
  command
      ->add_option("--ids-file", arguments->ids,
                   "JSON list of lists of token ids, or a safetensors file with input_ids")
      ->required();
  command->add_option("--mask-file", arguments->mask,
                      "the same with 1 for tokens and 0 for padding at the end");
  command->add_option("--out", arguments->out, "safetensors file to write");
  command->add_option("--compare", arguments->compare, "safetensors file with the expected outputs");
  command->add_option("--tolerance", arguments->tolerance, "largest difference that passes")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--dtype", arguments->dtype, "of activations: f32 or bf16");
  command->add_option("--activations", arguments->activations,
                      "in products with quantized weights: f32, exact, or int8, rounded as generation does");
  command->add_flag("--ggml-gelu", arguments->ggml_gelu,
                    "compute GELU with the 16-bit rounding of llama.cpp's CPU code, to compare with its outputs");
  command->add_flag("--json", arguments->json, "print the comparison as JSON");
  command->callback([arguments] { run_logits(*arguments); });
}

}  // namespace qkv
