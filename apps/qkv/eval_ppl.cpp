// qkv eval ppl MODEL TEXT
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "adapter_flags.h"
#include "cache_flags.h"
#include "compute_type.h"
#include "console.h"
#include "eval_verbs.h"
#include "qkv/core/error.h"
#include "qkv/core/progress.h"
#include "qkv/eval/perplexity.h"
#include "qkv/models/bundle.h"

namespace qkv {
namespace {

struct PplArguments {
  std::string model, text, dtype = "f32";
  WindowOptions options;
  AdapterFlags adapters;
  CacheFlags cache;
  bool json = false;
};

void run_ppl(const PplArguments& arguments) {
  WindowOptions options = arguments.options;
  const DType type = compute_type(arguments.dtype);
  options.compute_type = type;
  if (arguments.cache.any()) options.cache = arguments.cache.options(type);
  const std::string text = read_input(arguments.text);
  require_utf8(text, arguments.text);
  const Bundle bundle = load_bundle(arguments.model, {.adapters = arguments.adapters.requests()});
  options.context = std::min(options.context, bundle.model->info().max_positions);
  Perplexity result;
  {
    std::optional<Progress> progress;
    result =
        measure_perplexity(*bundle.model, *bundle.tokenizer, text, options, [&](int64_t done, int64_t total) {
          if (!progress) progress.emplace("perplexity", static_cast<uint64_t>(total), "windows");
          progress->update(static_cast<uint64_t>(done));
        });
  }
  if (arguments.json) {
    print_out(dump_json({{"perplexity", result.perplexity},
                         {"standard_error", result.standard_error},
                         {"negative_log_likelihood", result.negative_log_likelihood},
                         {"bits_per_byte", result.bits_per_byte},
                         {"tokens", result.tokens},
                         {"windows", result.windows},
                         {"context", options.context},
                         {"stride", options.stride}}) +
              "\n");
    return;
  }
  print_out(
      fmt::format("perplexity {:.4f} +- {:.4f}   ({:.4f} nats a token, {:.4f} bits a byte; {} tokens in {} "
                  "windows of {})\n",
                  result.perplexity, result.standard_error, result.negative_log_likelihood,
                  result.bits_per_byte, result.tokens, result.windows, options.context));
}

}  // namespace

void add_window_options(CLI::App& command, WindowOptions& options) {
  command.add_option("--context", options.context, "tokens per window, at most the model's positions")
      ->check(CLI::PositiveNumber);
  command.add_option("--stride", options.stride, "tokens from one window to the next; 0: side by side")
      ->check(CLI::NonNegativeNumber);
  command.add_option("--max-windows", options.max_windows, "at most this many windows; 0: all")
      ->check(CLI::NonNegativeNumber);
  command.add_option("--batch-tokens", options.batch_tokens, "tokens per forward pass")
      ->check(CLI::PositiveNumber);
}

void add_eval_ppl(CLI::App& eval) {
  auto arguments = std::make_shared<PplArguments>();
  CLI::App* command = eval.add_subcommand("ppl", "Perplexity of a text");
  command->footer(
      "Example:\n  qkv eval ppl model.gguf wiki.test.raw --context 512\n\n"
      "Windows lie side by side and the second half of each counts, as llama.cpp measures; with --stride "
      "they overlap and\n"
      "every token counts once, as Hugging Face's guide measures. With a --cache flag windows are read through "
      "such a cache.");
  command->add_option("model", arguments->model, "model to measure")->required();
  arguments->adapters.add_to(*command);
  command->add_option("text", arguments->text, "UTF-8 text file; - for standard input")->required();
  add_window_options(*command, arguments->options);
  command->add_option("--dtype", arguments->dtype, "of activations: f32 or bf16");
  arguments->cache.add_to(*command);
  command->add_flag("--json", arguments->json, "print the result as JSON");
  command->callback([arguments] { run_ppl(*arguments); });
}

}  // namespace qkv
