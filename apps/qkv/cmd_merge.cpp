// qkv merge BASE ADAPTER OUT: a model with adapters in its weights. What was written is read again and
// compared with the base and its adapters side by side.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "commands.h"
#include "console.h"
#include "qkv/core/atomic_file.h"
#include "qkv/core/error.h"
#include "qkv/core/rng.h"
#include "qkv/eval/divergence.h"
#include "qkv/models/bundle.h"

namespace qkv {
namespace {

namespace fs = std::filesystem;

struct MergeCommand {
  std::string base, adapter, output, dtype = "f32", text;
  std::vector<std::string> more;
  double max_kld = 0;
  bool json = false;
};

constexpr int64_t kWindow = 128, kWindows = 8;

// What both models are run on: the text, or tokens drawn evenly from the vocabulary.
std::vector<TextWindow> windows_of(const Bundle& bundle, const MergeCommand& command) {
  const ModelInfo& info = bundle.model->info();
  WindowOptions options;
  options.context = std::min(kWindow, info.max_positions);
  options.max_windows = kWindows;
  if (!command.text.empty()) {
    require(bundle.tokenizer != nullptr, "{}: --text needs a tokenizer, and the model has none",
            command.base);
    const std::string text = read_input(command.text);
    require_utf8(text, command.text);
    return text_windows(info, *bundle.tokenizer, text, options);
  }
  Rng rng(0, 0x6d65726765);
  std::vector<TextWindow> windows(kWindows);
  for (TextWindow& window : windows) {
    for (int64_t i = 0; i < options.context; ++i) {
      window.inputs.push_back(static_cast<int32_t>(rng.below(static_cast<uint64_t>(info.vocabulary))));
      window.targets.push_back(static_cast<int32_t>(rng.below(static_cast<uint64_t>(info.vocabulary))));
    }
  }
  return windows;
}

double largest_logit_change(const Model& merged, const Model& parts, const TextWindow& window) {
  const NoGrad off;
  const auto logits = [&](const Model& model) {
    return model.logits(
        model.forward(window.inputs, Pass::whole({static_cast<int64_t>(window.inputs.size())})));
  };
  const Tensor a = logits(merged), b = logits(parts);
  double largest = 0;
  for (int64_t i = 0; i < a.elements(); ++i) {
    largest = std::max(
        largest, std::abs(static_cast<double>(a.data<float>()[i]) - static_cast<double>(b.data<float>()[i])));
  }
  return largest;
}

void merge(const MergeCommand& command) {
  const std::optional<DType> type = dtype_from_name(command.dtype);
  require(type == DType::f32 || type == DType::bf16 || type == DType::f16,
          "--dtype: expected f32, bf16 or f16, found '{}'", command.dtype);
  require(!fs::exists(command.output) || (fs::is_directory(command.output) && fs::is_empty(command.output)),
          "{}: expected a directory that is new or empty", command.output);
  LoadOptions options;
  options.tokenizer_required = false;
  options.adapters.push_back(parse_adapter_request(command.adapter));
  for (const std::string& text : command.more) options.adapters.push_back(parse_adapter_request(text));
  const Bundle parts = load_bundle(command.base, options);
  const std::vector<TextWindow> windows = windows_of(parts, command);

  AtomicDirectory target(command.output);
  {
    const Bundle merged = load_bundle(command.base, options);
    merge_adapters(*merged.model);
    SaveOptions save;
    save.type = *type;
    save_bundle(target.path(), *merged.model, merged.tokenizer.get(), save);
  }
  LoadOptions plain;
  plain.tokenizer_required = false;
  const Bundle written = load_bundle(target.path(), plain);
  WindowOptions pass;
  const Divergence divergence = measure_divergence(*written.model, *parts.model, windows, pass);
  const double change = largest_logit_change(*written.model, *parts.model, windows[0]);
  const bool good = command.max_kld <= 0 || divergence.kl.value <= command.max_kld;
  if (good) target.commit();
  if (command.json) {
    print_out(dump_json({{"output", command.output},
                         {"written", good},
                         {"dtype", command.dtype},
                         {"largest_logit_change", change},
                         {"kl", divergence.kl.value},
                         {"kl_max", divergence.kl_max},
                         {"same_top", divergence.same_top.value},
                         {"tokens", divergence.tokens}}) +
              "\n");
  } else {
    print_out(fmt::format(
        "merged against side by side, {} tokens: largest logit change {:.3g}, mean KL divergence {:.3g} (max "
        "{:.3g}), "
        "same top token {:.2f} %\n",
        divergence.tokens, change, divergence.kl.value, divergence.kl_max, 100 * divergence.same_top.value));
    if (good) print_out(fmt::format("wrote {} ({})\n", command.output, command.dtype));
  }
  if (good) return;
  print_note(fmt::format("the mean KL divergence, {:.5g}, is above --max-kld {:.5g}: nothing was written",
                         divergence.kl.value, command.max_kld));
  throw CLI::RuntimeError(1);
}

}  // namespace

void add_merge(CLI::App& app) {
  const auto command = std::make_shared<MergeCommand>();
  CLI::App* verb = app.add_subcommand("merge", "Put adapters into the weights they were made for");
  verb->add_option("BASE", command->base, "The model")->required();
  verb->add_option("ADAPTER", command->adapter,
                   "A PEFT directory or a GGUF adapter, with =SCALE if not in full; more with --adapter")
      ->required();
  verb->add_option("OUT", command->output, "The Hugging Face directory to write")->required();
  verb->add_option("--adapter", command->more, "Another adapter over the first; may be repeated")
      ->type_name("PATH[=SCALE]")
      ->allow_extra_args(false);
  verb->add_option("--dtype", command->dtype, "Of the written weights: f32, bf16 or f16 (default: f32)")
      ->type_name("TYPE");
  verb->add_option("--text", command->text,
                   "Compare on this UTF-8 text instead of on random tokens; - for standard input")
      ->type_name("FILE");
  verb->add_option("--max-kld", command->max_kld,
                   "Write nothing, and exit with 1, if the mean KL divergence from the unmerged model is "
                   "larger; 0: any")
      ->check(CLI::NonNegativeNumber);
  verb->add_flag("--json", command->json, "Print the result as JSON");
  verb->footer("Example:\n  qkv merge my-model my-adapter my-merged-model --dtype bf16 --max-kld 0.001");
  verb->callback([command] { merge(*command); });
}

}  // namespace qkv
