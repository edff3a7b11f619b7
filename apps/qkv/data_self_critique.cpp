// qkv data self-critique MODEL PROMPTS.jsonl OUT.jsonl
#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "adapter_flags.h"
#include "compute_type.h"
#include "console.h"
#include "data_verbs.h"
#include "qkv/core/atomic_file.h"
#include "qkv/core/error.h"
#include "qkv/core/interrupt.h"
#include "qkv/core/progress.h"
#include "qkv/train/self_critique.h"

namespace qkv {
namespace {

struct SelfCritiqueCommand {
  std::string model, prompts, out, principles, mode = "revise", dtype = "f32";
  AdapterFlags adapters;
  SelfCritiqueOptions options;
  int64_t limit = 0;
  bool json = false;
};

void run(const SelfCritiqueCommand& command) {
  catch_interrupts();
  SelfCritiqueOptions options = command.options;
  options.judge = command.mode == "judge";
  options.rollout.compute_type = compute_type(command.dtype);
  if (!command.principles.empty()) options.principles = read_principles(command.principles);
  const std::vector<Prompt> prompts = read_prompts(command.prompts, command.limit);
  const Bundle bundle = load_bundle(command.model, {.adapters = command.adapters.requests()});
  std::optional<Progress> progress(std::in_place, "answering and criticizing", prompts.size(), "prompts");
  const SelfCritiqueResult result = self_critique(
      bundle, prompts, options, [&](int64_t done) { progress->update(static_cast<uint64_t>(done)); });
  progress.reset();
  require(!result.pairs.empty(),
          "self-critique: expected pairs of different answers, found none among {} prompts ({} alike, {} "
          "undecided)",
          prompts.size(), result.alike, result.undecided);
  AtomicFile file(command.out);
  for (const Json& pair : result.pairs) file.write(dump_json(pair) + "\n");
  file.commit();
  const Json summary = {{"pairs", result.pairs.size()},
                        {"alike", result.alike},
                        {"undecided", result.undecided},
                        {"out", command.out}};
  print_out(command.json ? dump_json(summary) + "\n"
                         : fmt::format("{}: {} pairs; {} prompts with equal or empty answers, {} undecided\n",
                                       command.out, result.pairs.size(), result.alike, result.undecided));
}

}  // namespace

void add_data_self_critique(CLI::App& data) {
  const auto command = std::make_shared<SelfCritiqueCommand>();
  CLI::App* verb = data.add_subcommand(
      "self-critique",
      "Make preference pairs from a model's own answers, by principles (constitutional AI, RLAIF)");
  verb->add_option("MODEL", command->model, "Answers and criticizes")->required();
  verb->add_option("PROMPTS", command->prompts, "JSON lines with prompt or messages")->required();
  verb->add_option("OUT", command->out, "Preference data to write, for qkv train dpo")->required();
  command->adapters.add_to(*verb);
  verb->add_option(
          "--mode", command->mode,
          "revise: its answer, rewritten after a critique, is preferred; judge: it says which of two answers "
          "is better (default: revise)")
      ->check(CLI::IsMember({"revise", "judge"}));
  verb->add_option("--principles", command->principles,
                   "A file with a principle on each line (default: five)");
  verb->add_option("--min-margin", command->options.min_margin,
                   "Pairs judged by smaller log-odds are left out")
      ->check(CLI::NonNegativeNumber);
  verb->add_option("--limit", command->limit, "Prompts at most, spread over the file; 0: all")
      ->check(CLI::NonNegativeNumber);
  verb->add_option("--max-tokens", command->options.rollout.max_new_tokens,
                   "Tokens of an answer (default: 64)")
      ->check(CLI::PositiveNumber);
  verb->add_option("--temperature", command->options.rollout.temperature, "Of sampling (default: 1)")
      ->check(CLI::NonNegativeNumber);
  verb->add_option("--seed", command->options.rollout.seed, "Of sampling");
  verb->add_option("--dtype", command->dtype, "Of activations: f32 or bf16");
  verb->add_flag("--json", command->json, "Print a JSON summary");
  verb->footer("Example:\n  qkv data self-critique my-model prompts.jsonl pairs.jsonl --mode judge");
  verb->callback([command] { run(*command); });
}

}  // namespace qkv
