// qkv prune IN OUT: fewer weights, as zeros or as a smaller model.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "commands.h"
#include "compare_models.h"
#include "console.h"
#include "qkv/compress/prune.h"
#include "qkv/core/error.h"
#include "qkv/core/progress.h"

namespace qkv {
namespace {

struct PruneCommand {
  std::string input, output, method, pattern, calibrate, eval;
  double sparsity = 0.5;
  StructureOptions structure;
  bool json = false, tensors = false;
};

bool is_structured(const PruneCommand& command) {
  return command.structure.heads > 0 || command.structure.channels > 0 || command.structure.layers > 0;
}

// "2:4": two of four are zero.
SparsityPattern pattern_of(const PruneCommand& command) {
  SparsityPattern pattern{.share = command.sparsity};
  if (command.pattern.empty()) return pattern;
  int kept = 0, of = 0;
  char rest = 0;
  const bool parsed = std::sscanf(command.pattern.c_str(), "%d:%d%c", &kept, &of, &rest) == 2;
  require(parsed && 0 < kept && kept < of && of <= 64,
          "--pattern: expected N:M, N weights of M neighbours kept, found '{}'", command.pattern);
  pattern.zeros = of - kept;
  pattern.of = of;
  return pattern;
}

std::string text_of(const PruneCommand& command, bool needed) {
  if (!needed) return "";
  require(!command.calibrate.empty(), "expected a text to calibrate with (--calibrate FILE), found none");
  std::string text = read_input(command.calibrate);
  require_utf8(text, command.calibrate);
  return text;
}

PruneReport run(const PruneCommand& command) {
  std::optional<Progress> progress;
  const auto show = [&](size_t layer, size_t layers) {
    if (!progress) progress.emplace("pruning", layers, "layers");
    progress->update(layer);
  };
  if (is_structured(command)) {
    require(command.method.empty() && command.pattern.empty(),
            "expected either --method or shares of --heads, --channels and --layers, found both");
    StructureOptions options = command.structure;
    options.text = text_of(command, true);
    options.progress = show;
    return prune_structure(command.input, command.output, options);
  }
  require(!command.method.empty(),
          "expected --method, or a share of --heads, --channels or --layers, found neither");
  PruneOptions options;
  options.method = prune_method_from_name(command.method);
  options.pattern = pattern_of(command);
  options.calibration = command.structure.calibration;
  options.text = text_of(command, options.method != PruneMethod::magnitude);
  options.progress = show;
  return prune_weights(command.input, command.output, options);
}

Json report_json(const PruneCommand& command, const PruneReport& report) {
  Json tensors = Json::array();
  for (const auto& tensor : report.tensors)
    tensors.push_back({{"name", tensor.name}, {"shape", tensor.shape.dims()}, {"sparsity", tensor.sparsity}});
  return {{"output", command.output},
          {"bytes_before", report.bytes_before},
          {"bytes", report.bytes},
          {"parameters_before", report.parameters_before},
          {"parameters", report.parameters},
          {"heads", report.heads},
          {"kv_heads", report.kv_heads},
          {"channels", report.hidden},
          {"layers", report.layers},
          {"removed_layers", report.removed_layers},
          {"tensors", tensors},
          {"notes", report.notes}};
}

void print_report(const PruneCommand& command, const PruneReport& report) {
  for (const auto& note : report.notes) print_note("note: " + note);
  double zeros = 0, weights = 0;
  for (const auto& tensor : report.tensors) {
    const auto elements = static_cast<double>(tensor.shape.elements());
    zeros += tensor.sparsity * elements;
    weights += elements;
    if (command.tensors)
      print_out(
          fmt::format("{:<48} {:>14} {:>8.3f} %\n", tensor.name, tensor.shape.str(), 100 * tensor.sparsity));
  }
  if (weights > 0)
    print_out(fmt::format("{} of {} weights in {} matrices are zero ({:.2f} %)\n",
                          static_cast<int64_t>(zeros + 0.5), static_cast<int64_t>(weights),
                          report.tensors.size(), 100 * zeros / weights));
  if (!report.removed_layers.empty())
    print_out(fmt::format("layers taken away: {}\n", fmt::join(report.removed_layers, ", ")));
  print_out(fmt::format(
      "{}: {} layers, {} heads ({} with keys of their own), {} channels; {} parameters of {}, {} of {}\n",
      command.output, report.layers, report.heads, report.kv_heads, report.hidden, report.parameters,
      report.parameters_before, format_bytes(report.bytes), format_bytes(report.bytes_before)));
}

void prune(const PruneCommand& command) {
  const auto begin = std::chrono::steady_clock::now();
  const PruneReport report = run(command);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  std::optional<Divergence> cost;
  if (!command.eval.empty())
    cost = compare_models(command.output, command.input, command.eval, command.structure.calibration.context);
  if (command.json) {
    Json json = report_json(command, report);
    json["seconds"] = seconds;
    if (cost) json["cost"] = comparison_json(*cost);
    print_out(dump_json(json) + "\n");
    return;
  }
  print_report(command, report);
  if (cost) print_out(comparison_sentence(*cost) + "\n");
}

}  // namespace

void add_prune(CLI::App& app) {
  const auto command = std::make_shared<PruneCommand>();
  CLI::App* verb = app.add_subcommand("prune", "Take weights, heads, channels or layers away");
  verb->add_option("IN", command->input, "A model in any format")->required();
  verb->add_option("OUT", command->output, "What to write, in any format: a directory, .gguf, .qkv")
      ->required();
  verb->add_option("--method", command->method,
                   "Which weights become zero: magnitude (small ones), wanda (small ones with small inputs), "
                   "sparsegpt (the "
                   "others make up for them)");
  verb->add_option("--sparsity", command->sparsity, "Share of the weights that become zero (default: 0.5)");
  verb->add_option("--pattern", command->pattern, "N:M, as in 2:4: N of M neighbours in a row are kept")
      ->type_name("N:M");
  verb->add_option("--heads", command->structure.heads,
                   "Share of attention heads to take away, together with the keys and values they share");
  verb->add_option("--channels", command->structure.channels,
                   "Share of the feed-forward networks' channels to take away");
  verb->add_option("--layers", command->structure.layers, "Share of the layers to take away");
  verb->add_option("--calibrate", command->calibrate,
                   "A text like those the model will read (all but magnitude)")
      ->type_name("FILE");
  verb->add_option("--calibrate-context", command->structure.calibration.context,
                   "Tokens per calibration sequence")
      ->check(CLI::PositiveNumber);
  verb->add_option("--calibrate-sequences", command->structure.calibration.sequences,
                   "At most so many sequences, spread over the text")
      ->check(CLI::PositiveNumber);
  verb->add_option("--eval", command->eval, "A text to compare the result with IN on")->type_name("FILE");
  verb->add_flag("--tensors", command->tensors, "One line for every matrix");
  verb->add_flag("--json", command->json, "Print the result as JSON");
  verb->footer(
      "Examples:\n  qkv prune my-model sparse --method sparsegpt --pattern 2:4 --calibrate text.txt\n"
      "  qkv prune model.gguf smaller.gguf --layers 0.25 --channels 0.2 --calibrate text.txt --eval "
      "test.txt");
  verb->callback([command] { prune(*command); });
}

}  // namespace qkv
