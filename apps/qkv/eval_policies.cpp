// qkv eval policies BASE --policy NAME=PATH... --measure NAME=REWARD@PROMPTS.jsonl...
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "compute_type.h"
#include "console.h"
#include "eval_verbs.h"
#include "qkv/train/policy_comparison.h"

namespace qkv {
namespace {

struct PoliciesArguments {
  std::string base, dtype = "f32", html;
  std::vector<std::string> policies, measures;
  ComparisonOptions options;
  bool json = false;
};

void run_policies(const PoliciesArguments& arguments) {
  std::vector<NamedPolicy> policies;
  std::vector<Measure> measures;
  for (const std::string& text : arguments.policies) policies.push_back(parse_policy(text));
  for (const std::string& text : arguments.measures) measures.push_back(parse_measure(text));
  ComparisonOptions options = arguments.options;
  options.rollout.compute_type = compute_type(arguments.dtype);
  const std::vector<PolicyScore> scores = compare_policies(arguments.base, policies, measures, options);
  if (!arguments.html.empty()) write_comparison_page(arguments.html, "Policies from one start", scores);
  if (arguments.json) {
    Json all = Json::array();
    for (const PolicyScore& score : scores) all.push_back(to_json(score));
    print_out(dump_json(all) + "\n");
    return;
  }
  print_out(fmt::format("{:<12} {:<12} {:>7} {:>8} {:>7} {:>8} {:>7} {:>6} {:>8} {:>7}\n", "measure",
                        "policy", "answers", "reward", "+-", "gain", "+-", "wins", "KL", "tokens"));
  for (const PolicyScore& score : scores)
    print_out(
        fmt::format("{:<12} {:<12} {:>7} {:>8.3f} {:>7.3f} {:>+8.3f} {:>7.3f} {:>6.3f} {:>8.3f} {:>7.1f}\n",
                    score.measure, score.policy, score.answers, score.reward, score.interval, score.gain,
                    score.gain_interval, score.win_rate, score.divergence, score.length));
}

}  // namespace

void add_eval_policies(CLI::App& eval) {
  auto arguments = std::make_shared<PoliciesArguments>();
  RolloutOptions& rollout = arguments->options.rollout;
  CLI::App* command = eval.add_subcommand("policies", "Compare tuned models by rewards on held-out prompts");
  command->footer(
      "Example:\n  qkv eval policies sft --policy sft --policy dpo=dpo-run/adapter --measure "
      "'accuracy=exact@arithmetic_valid.jsonl' --html scores.html\n\nThe first policy is what the others are "
      "compared with. Rewards are those of qkv train grpo.");
  command->add_option("base", arguments->base, "model that adapters are put on")->required();
  command->add_option("--policy", arguments->policies, "NAME, NAME=ADAPTER or NAME=MODEL, repeatable")
      ->allow_extra_args(false);
  command->add_option("--measure", arguments->measures, "NAME=REWARD@PROMPTS.jsonl, repeatable")
      ->allow_extra_args(false);
  command
      ->add_option("--limit", arguments->options.limit,
                   "prompts of a measure at most, spread over the file; 0: all")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--max-tokens", rollout.max_new_tokens, "tokens of an answer")
      ->check(CLI::PositiveNumber);
  command->add_option("--temperature", rollout.temperature, "of sampling; 0: the likeliest tokens")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--seed", rollout.seed, "of sampling");
  command
      ->add_option(
          "--chat", arguments->options.chat,
          "prompts that are texts are a user's turn: auto (if the model has a chat template), yes, no")
      ->check(CLI::IsMember({"auto", "yes", "no"}));
  command->add_option("--dtype", arguments->dtype, "of activations: f32 or bf16");
  command->add_option("--html", arguments->html, "write a page with table and charts");
  command->add_flag("--json", arguments->json, "print the scores as JSON");
  command->callback([arguments] { run_policies(*arguments); });
}

}  // namespace qkv
