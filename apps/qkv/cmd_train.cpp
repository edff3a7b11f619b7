// qkv train pretrain [CONFIG.yaml] [--any.key value]
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "apps/qkv/commands.h"
#include "apps/qkv/train_verbs.h"
#include "qkv/core/parallel.h"
#include "qkv/train/pretrain_job.h"

namespace qkv {
namespace {

struct TrainArguments {
  PretrainSettings settings;
  std::vector<std::string> data;
  bool json = false;
};

std::string pretrain_keys() {
  PretrainSettings settings;
  ConfigTable table;
  settings.bind(table);
  return describe_keys(table, "qkv train pretrain --data my.txt --out run --train.minutes 10");
}

}  // namespace

void add_train(CLI::App& app) {
  CLI::App* train = app.add_subcommand("train", "Train a model: from text, examples, preferences, a teacher or its own answers");
  train->require_subcommand(1);
  add_train_tune(*train);
  add_train_reinforce(*train);
  auto arguments = std::make_shared<TrainArguments>();
  CLI::App* pretrain = train->add_subcommand(
      "pretrain", "Train a language model from text: qkv train pretrain [CONFIG.yaml] ...");
  // Keys are read from what is left over, so leftovers must stay here rather than fall through to the
  // program.
  pretrain->fallthrough(false);
  pretrain->allow_extras();
  pretrain->add_option_function<int>("--threads", set_num_threads, "threads to use")->type_name("N");
  pretrain->footer(pretrain_keys);
  pretrain->add_option("--data", arguments->data, "text files (data.train)")->delimiter(',');
  pretrain->add_option("--out", arguments->settings.output, "directory of the run")->required();
  pretrain->add_option("--init-from", arguments->settings.init_from,
                       "model to go on from, with new data and schedule");
  pretrain->add_flag("--resume", arguments->settings.resume, "continue from the newest checkpoint of --out");
  pretrain->add_flag("--json", arguments->json, "print the result as one line of JSON");
  pretrain->callback([arguments, pretrain] {
    run_configured(*pretrain, arguments->settings, arguments->data, arguments->json, run_pretraining);
  });
}

}  // namespace qkv
