// qkv eval kld MODEL --reference PARENT --text FILE
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "adapter_flags.h"
#include "compute_type.h"
#include "console.h"
#include "eval_verbs.h"
#include "qkv/core/error.h"
#include "qkv/core/progress.h"
#include "qkv/eval/divergence.h"
#include "qkv/models/bundle.h"

namespace qkv {
namespace {

struct KldArguments {
  std::string model, reference, text, dtype = "f32";
  WindowOptions options;
  AdapterFlags adapters;
  double max_kld = 0;
  bool json = false;
};

Json estimate_json(const Estimate& estimate) {
  return {{"value", estimate.value},
          {"standard_error", estimate.standard_error},
          {"low", estimate.low},
          {"high", estimate.high}};
}

Json divergence_json(const Divergence& result, const WindowOptions& options) {
  return {{"kl", estimate_json(result.kl)},
          {"kl_percentiles",
           {{"50", result.kl_median},
            {"90", result.kl_90},
            {"95", result.kl_95},
            {"99", result.kl_99},
            {"99.9", result.kl_999},
            {"100", result.kl_max}}},
          {"same_top", estimate_json(result.same_top)},
          {"perplexity", estimate_json(result.perplexity)},
          {"reference_perplexity", estimate_json(result.reference_perplexity)},
          {"perplexity_ratio", estimate_json(result.perplexity_ratio)},
          {"probability_rms", result.probability_rms},
          {"tokens", result.tokens},
          {"windows", result.windows},
          {"blocks", result.blocks},
          {"context", options.context},
          {"stride", options.stride}};
}

void print_divergence(const Divergence& result, const WindowOptions& options) {
  const auto line = [](const char* name, const Estimate& estimate, double scale, const char* unit) {
    print_out(fmt::format("{:<22} {:>11.5g}{} +- {:.2g}   (95 %: {:.5g} to {:.5g})\n", name,
                          scale * estimate.value, unit, scale * estimate.standard_error, scale * estimate.low,
                          scale * estimate.high));
  };
  line("mean KL divergence", result.kl, 1, "");
  line("same top token, %", result.same_top, 100, "");
  line("perplexity", result.perplexity, 1, "");
  line("of the reference", result.reference_perplexity, 1, "");
  line("ratio", result.perplexity_ratio, 1, "");
  print_out(
      fmt::format("{:<22} median {:.3g}, 90 % {:.3g}, 95 % {:.3g}, 99 % {:.3g}, 99.9 % {:.3g}, max {:.3g}\n",
                  "KL, percentiles", result.kl_median, result.kl_90, result.kl_95, result.kl_99,
                  result.kl_999, result.kl_max));
  print_out(
      fmt::format("{:<22} {:.3g} (root mean square)\n", "change of probability", result.probability_rms));
  print_out(fmt::format("{} tokens in {} windows of {}; errors over {} blocks\n", result.tokens,
                        result.windows, options.context, result.blocks));
}

void run_kld(const KldArguments& arguments) {
  WindowOptions options = arguments.options;
  const DType type = compute_type(arguments.dtype);
  options.compute_type = type;
  const std::string text = read_input(arguments.text);
  require_utf8(text, arguments.text);
  const Bundle reference = load_bundle(arguments.reference);
  LoadOptions load;
  load.adapters = arguments.adapters.requests();
  load.tokenizer_required = false;  // quantizers do not always copy it
  const Bundle model = load_bundle(arguments.model, load);
  require_same_vocabulary(model.model->info(), model.tokenizer.get(), reference.model->info(),
                          *reference.tokenizer);
  options.context =
      std::min({options.context, model.model->info().max_positions, reference.model->info().max_positions});
  Divergence result;
  {
    std::optional<Progress> progress;
    result = measure_divergence(*model.model, *reference.model, *reference.tokenizer, text, options,
                                [&](int64_t done, int64_t total) {
                                  if (!progress)
                                    progress.emplace("divergence", static_cast<uint64_t>(total), "windows");
                                  progress->update(static_cast<uint64_t>(done));
                                });
  }
  if (arguments.json) {
    Json json = divergence_json(result, options);
    json["model"] = arguments.model;
    json["reference"] = arguments.reference;
    print_out(dump_json(json) + "\n");
  } else {
    print_divergence(result, options);
  }
  if (arguments.max_kld > 0 && !(result.kl.value <= arguments.max_kld)) {
    print_note(fmt::format("the mean KL divergence, {:.5g}, is above --max-kld {:.5g}", result.kl.value,
                           arguments.max_kld));
    throw CLI::RuntimeError(1);
  }
}

}  // namespace

void add_eval_kld(CLI::App& eval) {
  auto arguments = std::make_shared<KldArguments>();
  CLI::App* command =
      eval.add_subcommand("kld", "KL divergence from a reference: what compressing a model has cost");
  command->footer(
      "Example:\n  qkv eval kld model-q4.gguf --reference model-f16.gguf --text wiki.test.raw\n\n"
      "Both models read the same windows of the text (side by side, the second half of each counting; or "
      "overlapping,\nwith --stride). Reported are KL(reference || model) in nats a token, how often both put "
      "the same token first, and\nboth perplexities. Errors are standard errors over windows, or parts of "
      "them where they are few, since the\npositions of a window are not independent. With --max-kld, exit "
      "code 1 says that the mean is above it.");
  command->add_option("model", arguments->model, "model to measure")->required();
  arguments->adapters.add_to(*command);
  command->add_option("--reference", arguments->reference, "model it should be like")->required();
  command->add_option("--text", arguments->text, "UTF-8 text file; - for standard input")->required();
  add_window_options(*command, arguments->options);
  command->add_option("--dtype", arguments->dtype, "of activations: f32 or bf16");
  command->add_option("--max-kld", arguments->max_kld, "largest mean that passes; 0: any")
      ->check(CLI::NonNegativeNumber);
  command->add_flag("--json", arguments->json, "print the result as JSON");
  command->callback([arguments] { run_kld(*arguments); });
}

}  // namespace qkv
