// qkv convert IN OUT: any checkpoint in any format.
#include <CLI/CLI.hpp>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>

#include "commands.h"
#include "console.h"
#include "qkv/core/error.h"
#include "qkv/core/json.h"
#include "qkv/core/progress.h"
#include "qkv/models/convert.h"

namespace qkv {
namespace {

struct ConvertCommand {
  std::string input, output, type, shard_size, manifest;
  bool json = false;
};

// "5GB", "500 MiB", "1000000".
uint64_t parse_size(std::string text) {
  uint64_t bytes = 0;
  try {
    CLI::AsSizeValue(true)(text);  // 1 GB = 10^9 bytes, 1 GiB = 2^30
    if (!CLI::detail::lexical_cast(text, bytes)) bytes = 0;
  } catch (const CLI::Error&) {
    bytes = 0;
  }
  require(bytes > 0, "--max-shard-size: expected a size such as 5GB or 500MB, found '{}'", text);
  return bytes;
}

void convert(const ConvertCommand& command) {
  ConvertOptions options;
  if (!command.type.empty()) {
    options.type = dtype_from_name(command.type);
    require(options.type == DType::f32 || options.type == DType::bf16 || options.type == DType::f16,
            "--dtype: expected f32, bf16 or f16, found '{}'", command.type);
  }
  if (!command.shard_size.empty()) options.max_file_bytes = parse_size(command.shard_size);
  options.manifest = command.manifest;

  constexpr uint64_t kMega = 1'000'000;
  std::unique_ptr<Progress> progress;
  options.planned = [&](Container container, uint64_t bytes, size_t tensors) {
    if (!command.json) {
      print_note(fmt::format("writing {} of {} in {} tensors", container_name(container), format_bytes(bytes),
                             tensors));
    }
    progress = std::make_unique<Progress>("converting", bytes / kMega, "MB");
  };
  options.progress = [&](uint64_t bytes) { progress->update(bytes / kMega); };
  const auto begin = std::chrono::steady_clock::now();
  const ConvertReport report = convert_checkpoint(command.input, command.output, options);
  progress.reset();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();

  if (command.json) {
    print_out(dump_json({{"output", command.output},
                         {"format", container_name(report.container)},
                         {"tensors", report.tensors},
                         {"bytes", report.bytes},
                         {"seconds", seconds},
                         {"notes", report.notes}}) +
              "\n");
    return;
  }
  for (const auto& note : report.notes) print_note("note: " + note);
  print_out(fmt::format(
      "{}: {}, {} tensors, {} in {} ({}/s); {}\n", command.output, container_name(report.container),
      report.tensors, format_bytes(report.bytes), format_duration(seconds),
      format_bytes(static_cast<uint64_t>(static_cast<double>(report.bytes) / std::max(seconds, 1e-3))),
      memory_sentence()));
}

}  // namespace

void add_convert(CLI::App& app) {
  const auto command = std::make_shared<ConvertCommand>();
  CLI::App* verb = app.add_subcommand("convert", "Write a model in another format");
  verb->add_option("IN", command->input,
                   "A Hugging Face directory or a .gguf, .qkv, .safetensors, .pt or llama2.c file")
      ->required();
  verb->add_option("OUT", command->output,
                   "What to write, by the form of its name: .gguf, .qkv, .safetensors, .pt (.pth, .bin), or "
                   "a directory as "
                   "Hugging Face has them")
      ->required();
  verb->add_option("--dtype", command->type,
                   "Make all floating-point weights f32, bf16 or f16, quantized ones included (default: as "
                   "they are, exactly)");
  verb->add_option(
      "--max-shard-size", command->shard_size,
      "Split the weights into files of at most this size, for example 2GB (default: 5GB for directories)");
  verb->add_option("--manifest", command->manifest,
                   "Write the name, type, shape and XXH3-128 hash of every tensor to this file");
  verb->add_flag("--json", command->json, "Print the result as JSON");
  verb->footer(
      "Examples:\n  qkv convert my-model my-model.gguf\n  qkv convert model.gguf my-model --dtype bf16");
  verb->callback([command] { convert(*command); });
}

}  // namespace qkv
