// qkv eval tasks MODEL --task NAME=FILE...
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
#include "qkv/eval/tasks.h"

namespace qkv {
namespace {

struct TasksArguments {
  std::string model, dtype = "f32";
  std::vector<std::string> tasks;
  TaskOptions options;
  AdapterFlags adapters;
  bool json = false;
};

Json result_json(const TaskResult& result) {
  Json metrics = Json::object();
  for (const Metric& metric : result.metrics)
    metrics[metric.name] = {{"value", metric.value}, {"standard_error", metric.standard_error}};
  return {{"task", result.task},
          {"questions", result.questions},
          {"chance", result.chance},
          {"metrics", metrics}};
}

void run_tasks(const TasksArguments& arguments) {
  TaskOptions options = arguments.options;
  const DType type = compute_type(arguments.dtype);
  options.scoring.compute_type = type;
  std::vector<std::pair<const Task*, std::string>> wanted;
  for (const std::string& argument : arguments.tasks) {
    const size_t equals = argument.find('=');
    require(equals != std::string::npos, "--task: expected NAME=FILE, found '{}'", argument);
    wanted.emplace_back(&task_named(argument.substr(0, equals)), argument.substr(equals + 1));
  }
  const Bundle bundle = load_bundle(arguments.model, {.adapters = arguments.adapters.requests()});
  Json all = Json::array();
  if (!arguments.json)
    print_out(fmt::format("{:<15} {:>9}  {:<10} {:>9} {:>9} {:>9}\n", "task", "questions", "metric", "value",
                          "+-", "chance"));
  for (const auto& [task, path] : wanted) {
    std::optional<Progress> progress;
    const TaskResult result = run_task(bundle, *task, path, options, [&](int64_t done, int64_t total) {
      if (!progress) progress.emplace(task->name, static_cast<uint64_t>(total), "texts");
      progress->update(static_cast<uint64_t>(done));
    });
    progress.reset();
    if (arguments.json) {
      all.push_back(result_json(result));
      continue;
    }
    for (const Metric& metric : result.metrics) {
      const bool share = metric.name != "perplexity";
      print_out(fmt::format("{:<15} {:>9}  {:<10} {:>9.4f} {:>9.4f} {:>9}\n", result.task, result.questions,
                            metric.name, metric.value, metric.standard_error,
                            share && result.chance > 0 ? fmt::format("{:.4f}", result.chance) : "-"));
    }
  }
  if (arguments.json) print_out(dump_json(all) + "\n");
}

std::string task_list() {
  std::string list = "Tasks, scored as lm-evaluation-harness does:\n";
  for (const Task& task : tasks()) list += fmt::format("  {:<15} {}\n", task.name, task.about);
  return list;
}

}  // namespace

void add_eval_tasks(CLI::App& eval) {
  auto arguments = std::make_shared<TasksArguments>();
  CLI::App* command = eval.add_subcommand("tasks", "Multiple choice and last-word tasks");
  command->footer(
      "Example:\n  qkv eval tasks model --task arc_easy=ARC-Easy-Test.jsonl --task "
      "lambada=lambada_test.jsonl --limit 500\n\n" +
      task_list());
  command->add_option("model", arguments->model, "model to measure")->required();
  arguments->adapters.add_to(*command);
  command->add_option("--task", arguments->tasks, "NAME=FILE, repeatable")->required();
  command
      ->add_option("--limit", arguments->options.limit,
                   "at most this many questions, spread over the file; 0: all")
      ->check(CLI::NonNegativeNumber);
  command->add_flag("--add-bos", arguments->options.add_special,
                    "begin every text with the vocabulary's BOS token");
  command->add_option("--batch-tokens", arguments->options.scoring.batch_tokens, "tokens per forward pass")
      ->check(CLI::PositiveNumber);
  command->add_option("--dtype", arguments->dtype, "of activations: f32 or bf16");
  command->add_flag("--json", arguments->json, "print the results as JSON");
  command->callback([arguments] { run_tasks(*arguments); });
}

}  // namespace qkv
