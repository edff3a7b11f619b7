// qkv train sft|dpo|kto|orpo|cpo|simpo|reward|distill MODEL
#include <fmt/format.h>

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

void add_kind(CLI::App& train, TuneKind kind, const char* what, const char* example) {
  auto arguments = std::make_shared<TuneArguments>();
  arguments->settings = TuneSettings(kind);
  const std::string name(tune_kind_name(kind));
  CLI::App* verb =
      train.add_subcommand(name, fmt::format("{}: qkv train {} MODEL [CONFIG.yaml] ...", what, name));
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
  if (kind == TuneKind::distill)
    verb->add_option("--teacher", arguments->settings.teacher, "the model to learn from (distill.teacher)");
  verb->add_flag("--resume", arguments->settings.resume, "continue from the newest checkpoint of --out");
  verb->add_flag("--json", arguments->json, "print the result as one line of JSON");
  verb->callback([arguments, verb] {
    run_configured(*verb, arguments->settings, arguments->data, arguments->json, run_tuning);
  });
}

}  // namespace

void add_train_tune(CLI::App& train) {
  add_kind(train, TuneKind::sft, "Teach a model from examples",
           "qkv train sft my-model --data chats.jsonl --out run --adapter.rank 16");
  add_kind(train, TuneKind::dpo, "Teach a model which of two answers is preferred",
           "qkv train dpo my-model --data preferences.jsonl --out run --dpo.loss sigmoid --dpo.beta 0.1");
  add_kind(train, TuneKind::kto, "Teach a model from answers that are good or bad by themselves",
           "qkv train kto my-model --data labelled.jsonl --out run --kto.undesirable_weight 1.3");
  add_kind(train, TuneKind::orpo, "Examples and preferences in one, without a reference",
           "qkv train orpo my-model --data preferences.jsonl --out run --orpo.beta 0.1");
  add_kind(train, TuneKind::cpo, "Contrastive preferences without a reference",
           "qkv train cpo my-model --data preferences.jsonl --out run --cpo.alpha 1");
  add_kind(train, TuneKind::simpo, "Preferences by likelihood per token, without a reference",
           "qkv train simpo my-model --data preferences.jsonl --out run --simpo.beta 2 --simpo.gamma 1");
  add_kind(train, TuneKind::reward, "A model that scores answers",
           "qkv train reward my-model --data preferences.jsonl --data.valid held-out.jsonl --out run "
           "--adapter.kind none");
  add_kind(train, TuneKind::distill, "Teach a small model a large one's distribution",
           "qkv train distill small --teacher large --data chats.jsonl --out run --distill.temperature 2");
}

}  // namespace qkv
