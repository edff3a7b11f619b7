// qkv quantize IN OUT --type Q4_K_M: a model in fewer bits.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "calibration.h"
#include "commands.h"
#include "console.h"
#include "qkv/compress/quantize.h"
#include "qkv/core/error.h"
#include "qkv/core/progress.h"
#include "quantize_methods.h"

namespace qkv {
namespace {

struct QuantizeCommand {
  std::string input, output, type = "Q4_K_M", importance, calibration, output_type, embedding_type;
  std::vector<std::string> tensor_types;
  bool pure = false, keep_nonfinite = false, dry_run = false, json = false;
};

// A type that a GGUF tensor can be given.
DType tensor_type(std::string name, const char* flag) {
  for (char& c : name) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  const std::optional<DType> type = dtype_from_name(name);
  const bool writable = type && (type == DType::f32 || type == DType::f16 || type == DType::bf16 ||
                                 (block_type(*type) && type != DType::q8_1 && type != DType::q8_k));
  require(writable, "{}: expected a tensor type such as q6_k or f16, found '{}'", flag, name);
  return *type;
}

QuantizeOptions options_of(const QuantizeCommand& command) {
  QuantizeOptions options;
  options.type = file_type_from_name(command.type).type;
  for (const auto& text : command.tensor_types) {
    const size_t equals = text.rfind('=');
    require(equals != std::string::npos && equals > 0, "--tensor-type: expected REGEX=TYPE, found '{}'",
            text);
    options.tensor_types.emplace_back(text.substr(0, equals),
                                      tensor_type(text.substr(equals + 1), "--tensor-type"));
  }
  if (!command.output_type.empty())
    options.output_type = tensor_type(command.output_type, "--output-tensor-type");
  if (!command.embedding_type.empty())
    options.embedding_type = tensor_type(command.embedding_type, "--token-embedding-type");
  options.pure = command.pure;
  options.keep_nonfinite = command.keep_nonfinite;
  return options;
}

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

void print_plan(const QuantizePlan& plan) {
  for (const auto& note : plan.conversion.notes) print_note("note: " + note);
  print_exceptions(plan);
  print_table(plan);
}

Json plan_json(const QuantizeCommand& command, const QuantizePlan& plan) {
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
  return {{"output", command.output}, {"type", traits(plan.type).name},
          {"weights", plan.elements}, {"bytes_from", plan.bytes_from},
          {"bytes", plan.bytes_to},   {"bits_per_weight", plan.bits_per_weight()},
          {"types", types},           {"tensors", tensors}};
}

void quantize(const QuantizeCommand& command) {
  QuantizeOptions options = options_of(command);
  std::optional<Importance> importance;
  if (!command.importance.empty()) {
    importance = read_importance(command.importance);
    options.importance_name = command.importance;
  } else if (!command.calibration.empty()) {
    importance = calibrated_importance(command.input, command.calibration, {});
    options.importance_name = command.calibration;
  }
  if (importance) options.importance = &*importance;
  const auto source = open_checkpoint(command.input);
  const QuantizePlan plan = plan_quantization(*source, options);
  if (command.dry_run) {
    if (command.json) {
      print_out(dump_json(plan_json(command, plan)) + "\n");
    } else {
      print_plan(plan);
    }
    return;
  }
  require(!command.output.empty(), "expected OUT, a name that ends with .gguf or .qkv");
  constexpr uint64_t kMega = 1'000'000;
  const auto begin = std::chrono::steady_clock::now();
  {
    Progress progress("quantizing", plan.bytes_from / kMega, "MB");
    write_quantized(*source, plan, options, command.output,
                    [&](uint64_t bytes) { progress.update(bytes / kMega); });
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  const double rate = static_cast<double>(plan.bytes_from) / std::max(seconds, 1e-6) / 1e6;
  if (command.json) {
    Json json = plan_json(command, plan);
    json["seconds"] = seconds;
    json["megabytes_per_second"] = rate;
    print_out(dump_json(json) + "\n");
    return;
  }
  print_plan(plan);
  print_out(fmt::format("{}: {}, {} from {} ({:.2f} bits per weight) in {:.1f} s, {} MB/s; {}\n",
                        command.output, traits(plan.type).name, format_bytes(plan.bytes_to),
                        format_bytes(plan.bytes_from), plan.bits_per_weight(), seconds, format_rate(rate),
                        memory_sentence()));
}

std::string type_list() {
  std::string text = "File types:\n";
  for (const auto& type : file_types()) text += fmt::format("  {:<10} {}\n", type.name, type.about);
  return text;
}

}  // namespace

void add_quantize(CLI::App& app) {
  const auto command = std::make_shared<QuantizeCommand>();
  CLI::App* verb = app.add_subcommand("quantize", "Write a model in fewer bits");
  verb->add_option("IN", command->input, "A model in any format; quantized ones lose more")->required();
  verb->add_option("OUT", command->output,
                   "The file to write: .gguf or .qkv; with --method also a directory");
  verb->add_option("--type", command->type, "The file type, see below (default: Q4_K_M)");
  verb->add_option("--tensor-type", command->tensor_types,
                   "REGEX=TYPE: tensors whose GGUF name matches get this type, for example 'ffn_down=q6_k'; "
                   "repeatable, the "
                   "first match decides")
      ->type_name("REGEX=TYPE")
      ->allow_extra_args(false);
  verb->add_option("--output-tensor-type", command->output_type, "The type of output.weight");
  verb->add_option("--token-embedding-type", command->embedding_type, "The type of token_embd.weight");
  verb->add_flag("--pure", command->pure, "Give all matrices the same type, no more bits to some");
  verb->add_option("--imatrix", command->importance,
                   "An importance matrix (.gguf or .dat, as 'qkv imatrix' and llama.cpp write): which inputs "
                   "of each matrix "
                   "matter most")
      ->type_name("FILE");
  verb->add_option(
          "--calibrate", command->calibration,
          "A text like those the model will read: to measure importances on in place of --imatrix, or for a "
          "--method that calibrates")
      ->type_name("TEXT")
      ->excludes("--imatrix");
  verb->add_flag("--keep-nonfinite", command->keep_nonfinite,
                 "Leave tensors that have NaN or infinite values as they are instead of refusing them");
  verb->add_flag("--dry-run", command->dry_run, "Only say what would be written");
  verb->add_flag("--json", command->json, "Print the result as JSON");
  verb->footer(type_list() +
               "\nExamples:\n  qkv quantize my-model my-model-Q4_K_M.gguf\n"
               "  qkv quantize model.gguf small.gguf --type IQ3_M --imatrix model.imatrix.gguf\n"
               "  qkv quantize my-model my-model-gptq --method gptq --act-order --calibrate text.txt");
  const auto method = add_method_options(*verb);
  verb->callback([command, method] {
    method->calibrate = command->calibration;
    if (!run_method(*method, command->input, command->output, command->json)) quantize(*command);
  });
}

}  // namespace qkv
