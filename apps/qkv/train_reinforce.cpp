// qkv train grpo, rloo, ppo, online-dpo and gkd MODEL
#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "qkv/core/parallel.h"
#include "qkv/train/reinforce_job.h"
#include "train_verbs.h"

namespace qkv {
namespace {

struct ReinforceArguments {
  explicit ReinforceArguments(ReinforceKind kind) : settings(kind) {}
  ReinforceSettings settings;
  std::vector<std::string> data, rewards;
  bool json = false;
};

void add_kind(CLI::App& train, ReinforceKind kind, const char* name, const char* what, const char* example) {
  auto arguments = std::make_shared<ReinforceArguments>(kind);
  CLI::App* verb = train.add_subcommand(name, what);
  // Keys are read from what is left over, so leftovers must stay here rather than fall through to the
  // program.
  verb->fallthrough(false);
  verb->allow_extras();
  verb->add_option_function<int>("--threads", set_num_threads, "threads to use")->type_name("N");
  verb->footer([settings = arguments->settings, example]() mutable {
    ConfigTable table;
    settings.bind(table);
    return describe_keys(table, example);
  });
  verb->add_option("MODEL", arguments->settings.model, "the model to tune, quantized or not")->required();
  verb->add_option("--data", arguments->data, "files of prompts (data.train)")->delimiter(',');
  verb->add_option("--reward", arguments->rewards,
                   "what an answer is worth, [WEIGHT*][steps:]KIND[=ARGUMENT]; may be repeated (rewards)")
      ->type_name("TEXT")
      ->allow_extra_args(false);
  verb->add_option("--out", arguments->settings.output, "directory of the run")->required();
  verb->add_flag("--resume", arguments->settings.resume, "continue from the newest checkpoint of --out");
  verb->add_flag("--json", arguments->json, "print the result as one line of JSON");
  verb->callback([arguments, verb] {
    run_configured(*verb, arguments->settings, arguments->data, arguments->json,
                   [&](ReinforceSettings settings) {
                     if (!arguments->rewards.empty()) settings.rewards = arguments->rewards;
                     return run_reinforcement(std::move(settings));
                   });
  });
}

}  // namespace

void add_train_reinforce(CLI::App& train) {
  add_kind(train, ReinforceKind::grpo, "grpo",
           "Reward a model's own answers, groups against each other: qkv train grpo MODEL [CONFIG.yaml] ...",
           "qkv train grpo my-model --data questions.jsonl --reward exact --out run --rollout.group 8");
  add_kind(train, ReinforceKind::rloo, "rloo",
           "The same with each answer against the mean of the others: qkv train rloo MODEL [CONFIG.yaml] ...",
           "qkv train rloo my-model --data questions.jsonl --reward exact --out run --rloo.beta 0.05");
  add_kind(train, ReinforceKind::ppo, "ppo",
           "Reward a model's own answers, with a value head: qkv train ppo MODEL [CONFIG.yaml] ...",
           "qkv train ppo my-model --data prompts.jsonl --reward 'program=python3 score.py' --out run");
  add_kind(train, ReinforceKind::online_dpo, "online-dpo",
           "Learn from pairs of a model's own answers: qkv train online-dpo MODEL [CONFIG.yaml] ...",
           "qkv train online-dpo my-model --data prompts.jsonl --reward 'regex=^Sure' --out run");
  add_kind(train, ReinforceKind::gkd, "gkd",
           "Learn a teacher's distribution on a model's own answers: qkv train gkd MODEL [CONFIG.yaml] ...",
           "qkv train gkd my-model --gkd.teacher large-model --data prompts.jsonl --out run");
}

}  // namespace qkv
