// qkv imatrix MODEL --calibrate TEXT -o FILE: importances for quantizing.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "calibration.h"
#include "commands.h"
#include "compute_type.h"
#include "console.h"
#include "qkv/core/error.h"
#include "qkv/core/progress.h"
#include "qkv/models/bundle.h"

namespace qkv {
namespace {

struct ImatrixCommand {
  std::string model, text, output, dtype = "f32";
  ImatrixOptions options;
  bool json = false;
};

void imatrix(const ImatrixCommand& command) {
  ImatrixOptions options = command.options;
  const DType type = compute_type(command.dtype);
  options.compute_type = type;
  require(command.output.ends_with(".gguf") || command.output.ends_with(".dat"),
          "{}: expected a name that ends with .gguf or .dat", command.output);
  const Importance importance = calibrated_importance(command.model, command.text, options);
  write_importance(command.output, importance);
  const int64_t tokens = importance.chunks * importance.chunk_tokens;
  if (command.json) {
    print_out(dump_json({{"output", command.output},
                         {"matrices", importance.matrices.size()},
                         {"chunks", importance.chunks},
                         {"tokens", tokens}}) +
              "\n");
    return;
  }
  print_out(fmt::format("{}: importances of {} matrices from {} tokens in {} chunks of {}\n", command.output,
                        importance.matrices.size(), tokens, importance.chunks, importance.chunk_tokens));
}

}  // namespace

Importance calibrated_importance(const std::string& model, const std::string& text,
                                 ImatrixOptions options) {
  const std::string content = read_input(text);
  require_utf8(content, text);
  const Bundle bundle = load_bundle(model);
  options.context = std::min(options.context, bundle.model->info().max_positions);
  std::optional<Progress> progress;
  return collect_importance(*bundle.model, *bundle.tokenizer, content, text, options,
                            [&](int64_t done, int64_t total) {
                              if (!progress)
                                progress.emplace("calibrating", static_cast<uint64_t>(total), "chunks");
                              progress->update(static_cast<uint64_t>(done));
                            });
}

void add_imatrix(CLI::App& app) {
  const auto command = std::make_shared<ImatrixCommand>();
  CLI::App* verb = app.add_subcommand("imatrix", "Measure which weights matter, for quantize");
  verb->add_option("MODEL", command->model, "The model that will be quantized")->required();
  verb->add_option("--calibrate", command->text,
                   "UTF-8 text like what the model will be used for; - for standard input")
      ->type_name("TEXT")
      ->required();
  verb->add_option("-o,--out", command->output,
                   "The file to write: .gguf or .dat, both as llama.cpp has them")
      ->type_name("FILE")
      ->required();
  verb->add_option("--context", command->options.context, "Tokens per chunk (default: 512)")
      ->check(CLI::PositiveNumber);
  verb->add_option("--max-chunks", command->options.max_chunks, "At most this many chunks; 0: all")
      ->check(CLI::NonNegativeNumber);
  verb->add_option("--dtype", command->dtype, "Of activations: f32 or bf16 (default: f32)");
  verb->add_flag("--json", command->json, "Print the result as JSON");
  verb->footer("Example:\n  qkv imatrix my-model --calibrate text.txt -o my-model.imatrix.gguf");
  verb->callback([command] { imatrix(*command); });
}

}  // namespace qkv
