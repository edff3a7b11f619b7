// qkv eval: its commands, and `answers MODEL QUESTIONS.jsonl`
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "adapter_flags.h"
#include "commands.h"
#include "console.h"
#include "eval_verbs.h"
#include "qkv/core/progress.h"
#include "qkv/eval/answers.h"

namespace qkv {
namespace {

struct EvalArguments {
  std::string model, questions;
  AdapterFlags adapters;
  int64_t limit = 0, max_tokens = 48, show = 3;
  bool json = false;
};

Json score_json(const AnswerScore& score) {
  return {{"kind", score.kind}, {"questions", score.questions}, {"correct", score.correct}, {"accuracy", score.accuracy()},
          {"standard_error", score.standard_error}, {"chance", score.chance}};
}

void run_answers(const EvalArguments& arguments) {
  const Bundle bundle = load_bundle(arguments.model, {.adapters = arguments.adapters.requests()});
  const std::vector<AnswerQuestion> questions = read_questions(arguments.questions, arguments.limit);
  AnswerReport report;
  {
    Progress progress("answering", questions.size(), "questions");
    report = score_answers(bundle, questions, arguments.max_tokens, [&](int64_t done) { progress.update(static_cast<uint64_t>(done)); });
  }
  if (arguments.json) {
    Json kinds = Json::array();
    for (const auto& score : report.by_kind) kinds.push_back(score_json(score));
    print_out(dump_json({{"total", score_json(report.total)}, {"kinds", kinds}}) + "\n");
    return;
  }
  for (int64_t i = 0; i < std::min<int64_t>(arguments.show, static_cast<int64_t>(report.samples.size())); ++i) {
    const AnswerSample& sample = report.samples[static_cast<size_t>(i) * report.samples.size() / static_cast<size_t>(arguments.show)];
    print_out(fmt::format("{}{}\n  -> {} (expected: {})\n\n", sample.prompt, sample.given, sample.correct ? "right" : "wrong", sample.expected));
  }
  print_out(fmt::format("{:<24} {:>9} {:>9} {:>9}\n", "kind", "questions", "right", "guessing"));
  for (const auto& score : report.by_kind) {
    print_out(fmt::format("{:<24} {:>9} {:>8.1f}% {:>8.1f}%\n", score.kind, score.questions, 100 * score.accuracy(), 100 * score.chance));
  }
  print_out(fmt::format("{:<24} {:>9} {:>8.1f}% {:>8.1f}%   (+- {:.1f})\n", "all", report.total.questions, 100 * report.total.accuracy(),
                        100 * report.total.chance, 100 * report.total.standard_error));
}

}  // namespace

void add_eval(CLI::App& app) {
  CLI::App* eval = app.add_subcommand("eval", "Measure a model");
  eval->require_subcommand(1, 1);
  auto arguments = std::make_shared<EvalArguments>();
  CLI::App* answers = eval->add_subcommand("answers", "Score greedy answers to questions with checkable answers");
  answers->footer("Example:\n  qkv eval answers run/model corpus/questions.jsonl --limit 500");
  answers->add_option("model", arguments->model, "model to measure")->required();
  arguments->adapters.add_to(*answers);
  answers->add_option("questions", arguments->questions, "JSON lines with prompt and answer")->required();
  answers->add_option("--limit", arguments->limit, "at most this many questions, spread over the file; 0: all")->check(CLI::NonNegativeNumber);
  answers->add_option("--max-tokens", arguments->max_tokens, "tokens per answer")->check(CLI::PositiveNumber);
  answers->add_option("--show", arguments->show, "questions to print with their answers")->check(CLI::NonNegativeNumber);
  answers->add_flag("--json", arguments->json, "print the scores as JSON");
  answers->callback([arguments] { run_answers(*arguments); });
  add_eval_kld(*eval);
  add_eval_logits(*eval);
  add_eval_ppl(*eval);
  add_eval_policies(*eval);
  add_eval_tasks(*eval);
}

}  // namespace qkv
