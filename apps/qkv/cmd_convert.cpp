// qkv convert IN OUT: any checkpoint in any format.
#include <CLI/CLI.hpp>
#include <memory>

#include "commands.h"
#include "conversion.h"

namespace qkv {
namespace {

struct ConvertCommand {
  std::string input;
  ConversionFlags flags;
};

void convert(const ConvertCommand& command) {
  command.flags.check();
  write_checkpoint(*open_checkpoint(command.input), command.flags, command.flags.dtype());
}

}  // namespace

void add_convert(CLI::App& app) {
  const auto command = std::make_shared<ConvertCommand>();
  CLI::App* verb = app.add_subcommand("convert", "Write a model in another format");
  verb->add_option("IN", command->input,
                   "A Hugging Face directory or a .gguf, .qkv, .safetensors, .pt or llama2.c file")
      ->required();
  command->flags.add_to(*verb,
                        "Make all floating-point weights f32, bf16 or f16, quantized ones included (default: "
                        "as they are, exactly)");
  verb->footer(
      "Examples:\n  qkv convert my-model my-model.gguf\n  qkv convert model.gguf my-model --dtype bf16\n  "
      "qkv convert my-model small.qkv --lossless");
  verb->callback([command] { convert(*command); });
}

}  // namespace qkv
