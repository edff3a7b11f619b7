// qkv init CONFIG OUT: a checkpoint of random weights. For measuring what a model of some shape takes before
// there is one, for tests, and to begin training from.
#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "commands.h"
#include "conversion.h"
#include "qkv/core/error.h"
#include "qkv/core/mapped_file.h"
#include "qkv/formats/python_json.h"
#include "qkv/models/checkpoint_tokenizer.h"
#include "qkv/models/random_checkpoint.h"
#include "qkv/models/registry.h"
#include "qkv/models/tokenizer_source.h"
#include "qkv/text/tokenizer_files.h"

namespace qkv {
namespace {

namespace fs = std::filesystem;

struct InitCommand {
  std::string config, tokenizer;
  uint64_t seed = 0;
  ConversionFlags flags;
};

struct Outline {
  Json config;
  std::unique_ptr<Tokenizer> tokenizer;  // null if there is none
};

// What a model shall be, from a config.json, a directory that has one, or any checkpoint. The tokenizer is
// the one that came with it.
Outline read_outline(const std::string& path) {
  Outline outline;
  const std::string file = fs::is_directory(path) ? path + "/config.json" : path;
  const auto mapped = MappedFile::open(file);
  const std::string_view text(reinterpret_cast<const char*>(mapped->bytes().data()), mapped->bytes().size());
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (first != std::string_view::npos && text[first] == '{') {
    outline.config = parse_python_json(text, file);
    const fs::path directory = fs::path(file).parent_path();
    const DirectoryFiles beside(directory.empty() ? "." : directory.string());
    if (has_tokenizer(beside)) outline.tokenizer = load_tokenizer(beside);
  } else {
    const auto checkpoint = open_checkpoint(path);
    outline.config = *model_config(*checkpoint).config;
    outline.tokenizer = tokenizer_of(*checkpoint);
  }
  return outline;
}

// The type that the configuration names, or f32.
DType configured_type(const Json& config, const std::string& where) {
  const JsonView view(config, where);
  const std::string name = view.string_or("torch_dtype", view.string_or("dtype", "float32"));
  return name == "bfloat16" ? DType::bf16 : name == "float16" ? DType::f16 : DType::f32;
}

void init(const InitCommand& command) {
  command.flags.check();
  Outline outline = read_outline(command.config);
  if (!command.tokenizer.empty()) outline.tokenizer = load_any_tokenizer(command.tokenizer);
  HfFiles files;
  if (outline.tokenizer) {
    set_token_ids(outline.config, *outline.tokenizer);
    files = outline.tokenizer->files();
  }
  const RandomWeights weights = {
      .type = command.flags.dtype().value_or(configured_type(outline.config, command.config)),
      .seed = command.seed};
  const RandomCheckpoint checkpoint(outline.config, weights, std::move(files), command.config);
  if (outline.tokenizer) {
    require_rows_for(*outline.tokenizer, checkpoint.model().info().vocabulary, command.config);
  }
  write_checkpoint(checkpoint, command.flags, std::nullopt);
}

}  // namespace

void add_init(CLI::App& app) {
  const auto command = std::make_shared<InitCommand>();
  CLI::App* verb = app.add_subcommand("init", "Write a model of random weights from a configuration");
  verb->add_option("CONFIG", command->config,
                   "A config.json, a directory that has one, or a checkpoint whose shape to take")
      ->required();
  command->flags.add_to(
      *verb, "The type of all weights: f32, bf16 or f16 (default: what the configuration says, or f32)");
  verb->add_option("--seed", command->seed,
                   "Of the weights; the same seed gives the same weights (default: 0)");
  verb->add_option("--tokenizer", command->tokenizer,
                   "A tokenizer to put with the weights: its file, its directory or a model that has one "
                   "(default: the one beside CONFIG, if any)")
      ->type_name("PATH");
  verb->footer(
      "Example:\n  qkv init bench/shapes/llama-1.1b.json model.gguf --dtype f16 --tokenizer my-tokenizer");
  verb->callback([command] { init(*command); });
}

}  // namespace qkv
