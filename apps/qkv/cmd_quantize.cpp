// qkv quantize IN OUT --type Q4_K_M: a model in fewer bits.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "calibration.h"
#include "commands.h"
#include "console.h"
#include "qkv/compress/compressed_model.h"
#include "qkv/compress/quantize.h"
#include "qkv/core/error.h"
#include "qkv/core/progress.h"
#include "quantize_adaptive.h"
#include "quantize_cost.h"
#include "quantize_methods.h"
#include "quantize_plan.h"

namespace qkv {
namespace {

struct QuantizeCommand {
  std::string input, output, type = "Q4_K_M", importance, calibration, output_type, embedding_type;
  std::vector<std::string> tensor_types;
  bool has_type = false, pure = false, keep_nonfinite = false, dry_run = false, json = false;
  AdaptiveFlags adaptive;
  std::shared_ptr<MethodCommand> method;
};

}  // namespace

DType tensor_type(std::string name, const char* flag) {
  for (char& c : name) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  const std::optional<DType> type = dtype_from_name(name);
  const bool writable = type && (type == DType::f32 || type == DType::f16 || type == DType::bf16 ||
                                 (block_type(*type) && type != DType::q8_1 && type != DType::q8_k));
  require(writable, "{}: expected a tensor type such as q6_k or f16, found '{}'", flag, name);
  return *type;
}

namespace {

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

// Measures on at most so many windows of a calibration text, which is long for another purpose.
constexpr int64_t kCalibrationWindows = 32, kContext = 512;

void write(const QuantizeCommand& command, const Checkpoint& source, const QuantizeOptions& options,
           const CostMeter* meter) {
  const QuantizePlan plan = plan_quantization(source, options);
  if (command.dry_run) {
    if (command.json) {
      print_out(dump_json(plan_json(command.output, plan)) + "\n");
    } else {
      print_plan(plan);
    }
    return;
  }
  require(!command.output.empty(), "expected OUT, a name that ends with .gguf or .qkv");
  constexpr uint64_t kMega = 1'000'000;
  const auto begin = std::chrono::steady_clock::now();
  const auto seconds_since = [](auto start) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  // Measured before it is written, so that what is refused never was there.
  std::vector<Tensor> ready;
  std::optional<Divergence> cost;
  double seconds = 0;
  {
    Progress progress("quantizing", plan.bytes_from / kMega, "MB");
    const auto show = [&](uint64_t bytes) { progress.update(bytes / kMega); };
    if (meter != nullptr) {
      CompressedModel compressed(source, plan, options, show);
      seconds = seconds_since(begin);
      cost = meter->measure(compressed.model());
      ready = compressed.take_tensors();
    } else {
      write_quantized(source, plan, options, command.output, show);
      seconds = seconds_since(begin);
    }
  }
  const std::string& measured_on = command.method->eval.empty() ? command.calibration : command.method->eval;
  const bool refused = cost && command.method->max_kld > 0 && !(cost->kl.value <= command.method->max_kld);
  if (!ready.empty() && !refused) {
    const auto start = std::chrono::steady_clock::now();
    write_quantized(source, plan, options, command.output, {}, std::move(ready));
    seconds += seconds_since(start);
  }
  const double rate = static_cast<double>(plan.bytes_from) / std::max(seconds, 1e-6) / 1e6;
  if (command.json && !refused) {
    Json json = plan_json(command.output, plan);
    json["seconds"] = seconds;
    json["megabytes_per_second"] = rate;
    if (cost) json["cost"] = cost_json(*cost, measured_on);
    print_out(dump_json(json) + "\n");
    return;
  }
  if (!command.json) {
    print_plan(plan);
    if (cost) print_out(cost_lines(*cost, measured_on));
  }
  if (refused) {
    print_note(fmt::format("the mean KL divergence, {:.5g}, is above --max-kld {:.5g}: nothing is written",
                           cost->kl.value, command.method->max_kld));
    throw CLI::RuntimeError(1);
  }
  print_out(fmt::format("{}: {}, {} from {} ({:.2f} bits per weight) in {:.1f} s, {} MB/s; {}\n",
                        command.output, traits(plan.type).name, format_bytes(plan.bytes_to),
                        format_bytes(plan.bytes_from), plan.bits_per_weight(), seconds, format_rate(rate),
                        memory_sentence()));
}

void quantize(const QuantizeCommand& command) {
  QuantizeOptions options = options_of(command);
  const std::string& evaluation = command.method->eval;
  // A divergence to aim for, unless a type or a size is named: then it is what must not be passed.
  const bool adaptive = command.adaptive.is_asked() || (command.method->max_kld > 0 && !command.has_type);
  require(!adaptive || (!command.has_type && !command.pure),
          "--target-size, --target-bpw: every matrix gets a type of its own, so neither --type nor --pure "
          "can be given");
  require(command.method->max_kld == 0 || !evaluation.empty() || !command.calibration.empty(),
          "--max-kld: expected a text to measure the divergence on (--eval FILE or --calibrate FILE), found "
          "none");
  std::optional<Importance> importance;
  if (!command.importance.empty()) {
    importance = read_importance(command.importance);
    options.importance_name = command.importance;
  } else if (!command.calibration.empty()) {
    importance = calibrated_importance(command.input, command.calibration, {});
    options.importance_name = command.calibration;
  }
  if (importance) options.importance = &*importance;
  std::optional<CostMeter> meter;
  if (!evaluation.empty()) {
    meter.emplace(command.input, evaluation, kContext, 0);
  } else if (!command.calibration.empty() && !(command.dry_run && !adaptive)) {
    meter.emplace(command.input, command.calibration, kContext, kCalibrationWindows);
  }
  const auto source = open_checkpoint(command.input);
  const CostMeter* measures = meter ? &*meter : nullptr;
  if (!adaptive) return write(command, *source, options, measures);
  quantize_adaptively({command.input, command.output, command.calibration, evaluation, &command.adaptive,
                       command.method->max_kld, command.json, command.dry_run},
                      *source, options, measures);
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
  CLI::Option* type = verb->add_option("--type", command->type, "The file type, see below (default: Q4_K_M)");
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
          "--method that calibrates, and for the sensitivities of --target-size; the result is measured on "
          "it "
          "if there is no --eval")
      ->type_name("TEXT");
  verb->add_flag("--keep-nonfinite", command->keep_nonfinite,
                 "Leave tensors that have NaN or infinite values as they are instead of refusing them");
  verb->add_flag("--dry-run", command->dry_run, "Only say what would be written");
  verb->add_flag("--json", command->json, "Print the result as JSON");
  verb->footer(type_list() +
               "\nExamples:\n  qkv quantize my-model my-model-Q4_K_M.gguf\n"
               "  qkv quantize model.gguf small.gguf --type IQ3_M --imatrix model.imatrix.gguf\n"
               "  qkv quantize my-model best.gguf --target-size 3.8G --calibrate text.txt --eval other.txt\n"
               "  qkv quantize my-model my-model-gptq --method gptq --act-order --calibrate text.txt\n"
               "  qkv quantize my-model my-model.gguf --method gptq --type Q4_K_M --calibrate text.txt");
  command->adaptive.add_to(*verb);
  command->method = add_method_options(*verb);
  verb->callback([command, type] {
    command->has_type = type->count() > 0;
    command->method->calibrate = command->calibration;
    if (!command->method->method.empty()) command->method->options.blocks = options_of(*command);
    if (!run_method(*command->method, command->input, command->output, command->json)) quantize(*command);
  });
}

}  // namespace qkv
