// qkv plan train KIND MODEL [CONFIG.yaml] [--any.key value]
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "console.h"
#include "plan_verbs.h"
#include "qkv/core/error.h"
#include "qkv/core/progress.h"
#include "qkv/plan/train_plan.h"
#include "train_verbs.h"

namespace qkv {
namespace {

struct PlanArguments {
  std::string kind;
  std::string model;
  std::vector<std::string> data;
  bool json = false;
};

const std::vector<std::pair<std::string, TuneKind>> kKinds = {
    {"sft", TuneKind::sft},       {"dpo", TuneKind::dpo},        {"kto", TuneKind::kto},
    {"orpo", TuneKind::orpo},     {"cpo", TuneKind::cpo},        {"simpo", TuneKind::simpo},
    {"reward", TuneKind::reward}, {"distill", TuneKind::distill}};

void plan(const CLI::App& verb, const PlanArguments& arguments) {
  std::vector<std::string> names;
  TuneSettings settings;
  bool found = false;
  for (const auto& [name, kind] : kKinds) {
    names.push_back(name);
    if (name != arguments.kind) continue;
    settings = TuneSettings(kind);
    found = true;
  }
  require(found, "plan train: expected {}, found '{}'", fmt::join(names, ", "), arguments.kind);
  settings.model = arguments.model;
  ConfigTable table;
  settings.bind(table);
  apply_words(table, verb.remaining());
  if (!arguments.data.empty()) settings.train_files = arguments.data;
  const TrainPlan result = plan_training(settings);
  if (arguments.json) {
    print_out(dump_json({{"layers", result.layers},
                         {"measured_layers", result.measured_layers},
                         {"parameters", result.parameters},
                         {"tokens", result.tokens},
                         {"steps", result.steps},
                         {"tensor_bytes", result.tensor_bytes},
                         {"mapped_bytes", result.mapped_bytes},
                         {"resident_bytes", result.resident_bytes},
                         {"seconds", result.measured_seconds}}) +
              "\n");
    return;
  }
  print_out(fmt::format("{} parameters in {} layers; steps of up to {} layers measured in {}\n",
                        result.parameters, result.layers, result.measured_layers,
                        format_duration(result.measured_seconds)));
  print_out(fmt::format("largest forward   {} tokens of {} steps\n", result.tokens, result.steps));
  print_out(fmt::format("tensors           {}\n", format_bytes(result.tensor_bytes)));
  print_out(fmt::format("weights in files  {}\n", format_bytes(result.mapped_bytes)));
  print_out(fmt::format("peak memory       {}\n", format_bytes(result.resident_bytes)));
}

}  // namespace

void add_plan_train(CLI::App& app) {
  const auto arguments = std::make_shared<PlanArguments>();
  CLI::App* verb = app.add_subcommand(
      "train", "What a run of training will need: qkv plan train KIND MODEL [CONFIG.yaml] ...");
  verb->fallthrough(false);
  verb->allow_extras();
  verb->add_option("KIND", arguments->kind,
                   "sft, dpo, kto, orpo, cpo, simpo, reward or distill, as for qkv train")
      ->required();
  verb->add_option("MODEL", arguments->model, "the model to tune")->required();
  verb->add_option("--data", arguments->data, "data files (data.train)")->delimiter(',');
  verb->add_flag("--json", arguments->json, "print the result as JSON");
  verb->footer(
      "All keys of qkv train KIND are taken.\n\nExample:\n  qkv plan train sft model.gguf --data chats.jsonl "
      "--adapter.rank 16");
  verb->callback([arguments, verb] { plan(*verb, *arguments); });
}

}  // namespace qkv
