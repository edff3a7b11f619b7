// qkv train sft MODEL and qkv train dpo MODEL
#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "qkv/core/parallel.h"
#include "qkv/train/tune_job.h"
#include "train_verbs.h"

namespace qkv {
namespace {

struct TuneArguments {
  TuneSettings settings;
  std::vector<std::string> data;
  bool json = false;
};

void add_kind(CLI::App& train, TuneKind kind, const char* name, const char* what, const char* example) {
  auto arguments = std::make_shared<TuneArguments>();
  arguments->settings.kind = kind;
  if (kind == TuneKind::dpo) arguments->settings.optimizer.lr = 5e-5;
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
  verb->add_option("--data", arguments->data, "data files (data.train)")->delimiter(',');
  verb->add_option("--out", arguments->settings.output, "directory of the run")->required();
  verb->add_flag("--resume", arguments->settings.resume, "continue from the newest checkpoint of --out");
  verb->add_flag("--json", arguments->json, "print the result as one line of JSON");
  verb->callback([arguments, verb] {
    run_configured(*verb, arguments->settings, arguments->data, arguments->json, run_tuning);
  });
}

}  // namespace

void add_train_tune(CLI::App& train) {
  add_kind(train, TuneKind::sft, "sft", "Teach a model from examples: qkv train sft MODEL [CONFIG.yaml] ...",
           "qkv train sft my-model --data chats.jsonl --out run --adapter.rank 16");
  add_kind(train, TuneKind::dpo, "dpo",
           "Teach a model which answers are preferred: qkv train dpo MODEL [CONFIG.yaml] ...",
           "qkv train dpo my-model --data preferences.jsonl --out run --dpo.beta 0.1");
}

}  // namespace qkv
