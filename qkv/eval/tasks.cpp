#include "qkv/eval/tasks.h"

#include <algorithm>
#include <cmath>

#include "qkv/core/error.h"
#include "qkv/core/json.h"
#include "qkv/core/utf8.h"
#include "qkv/eval/task_readers.h"

namespace qkv {
namespace {

size_t code_points(std::string_view text) {
  size_t count = 0;
  for (size_t at = 0; at < text.size(); ++count) next_code_point(text, at);
  return count;
}

std::vector<ChoiceQuestion> spread(std::vector<ChoiceQuestion> all, int64_t limit) {
  const auto n = static_cast<int64_t>(all.size());
  if (limit <= 0 || limit >= n) return all;
  std::vector<ChoiceQuestion> chosen;
  for (int64_t i = 0; i < limit; ++i) chosen.push_back(std::move(all[static_cast<size_t>(i * n / limit)]));
  return chosen;
}

size_t best_of(const std::vector<double>& values) {
  return static_cast<size_t>(std::max_element(values.begin(), values.end()) - values.begin());
}

Metric accuracy(std::string name, const std::vector<double>& hits) {
  const MeanEstimate estimate = estimate_mean(hits);
  return {std::move(name), estimate.mean, estimate.standard_error};
}

// The error of exp(-mean) by its derivative: perplexity times the error of the mean.
Metric perplexity(const std::vector<double>& log_likelihoods) {
  const MeanEstimate estimate = estimate_mean(log_likelihoods);
  const double value = std::exp(-estimate.mean);
  return {"perplexity", value, value * estimate.standard_error};
}

}  // namespace

const std::vector<Task>& tasks() {
  static const std::vector<Task> all = {
      {"lambada", TaskKind::last_word, "predict a passage's last word (Paperno et al., arXiv 1606.06031)",
       read_lambada},
      {"hellaswag", TaskKind::multiple_choice, "finish a description (Zellers et al., arXiv 1905.07830)",
       read_hellaswag},
      {"arc_easy", TaskKind::multiple_choice, "grade-school science (Clark et al., arXiv 1803.05457)",
       read_arc},
      {"arc_challenge", TaskKind::multiple_choice, "the harder part of ARC", read_arc},
      {"piqa", TaskKind::multiple_choice, "everyday physics (Bisk et al., arXiv 1911.11641)", read_piqa},
      {"winogrande", TaskKind::partial, "whom a sentence is about (Sakaguchi et al., arXiv 1907.10641)",
       read_winogrande},
  };
  return all;
}

const Task& task_named(const std::string& name) {
  std::vector<std::string> names;
  for (const Task& task : tasks()) {
    if (name == task.name) return task;
    names.emplace_back(task.name);
  }
  fail("task: expected one of {}, found '{}'{}", fmt::join(names, ", "), name, suggestion(name, names));
}

TaskResult run_task(const Bundle& bundle, const Task& task, const std::string& path,
                    const TaskOptions& options, const std::function<void(int64_t, int64_t)>& progress) {
  require(bundle.tokenizer != nullptr, "{}: evaluation tasks need a tokenizer", bundle.path);
  const std::vector<ChoiceQuestion> questions = spread(task.read(path), options.limit);
  std::vector<Continuation> items;
  for (const ChoiceQuestion& question : questions) {
    const size_t n = question.choices();
    for (size_t c = 0; c < n; ++c) {
      const std::string& context = question.contexts[question.contexts.size() == 1 ? 0 : c];
      const std::string& continuation = question.continuations[question.continuations.size() == 1 ? 0 : c];
      items.push_back(encode_continuation(*bundle.tokenizer, context, continuation, options.add_special));
    }
  }
  const auto total = static_cast<int64_t>(items.size());
  const std::vector<ContinuationScore> scores =
      score_continuations(*bundle.model, items, options.scoring, [&](int64_t done) {
        if (progress) progress(done, total);
      });

  TaskResult result;
  result.task = task.name;
  result.questions = static_cast<int64_t>(questions.size());
  std::vector<double> hits, normalized_hits, likelihoods;
  size_t at = 0;
  for (const ChoiceQuestion& question : questions) {
    if (task.kind == TaskKind::last_word) {
      hits.push_back(scores[at].greedy ? 1 : 0);
      likelihoods.push_back(scores[at].log_likelihood);
      ++at;
      continue;
    }
    std::vector<double> plain, normalized;
    for (size_t c = 0; c < question.choices(); ++c, ++at) {
      plain.push_back(scores[at].log_likelihood);
      normalized.push_back(scores[at].log_likelihood /
                           static_cast<double>(std::max<size_t>(1, code_points(question.answers[c]))));
    }
    hits.push_back(best_of(plain) == question.correct ? 1 : 0);
    normalized_hits.push_back(best_of(normalized) == question.correct ? 1 : 0);
    result.chance += 1.0 / static_cast<double>(question.choices()) / static_cast<double>(questions.size());
  }
  result.metrics.push_back(accuracy("acc", hits));
  if (task.kind == TaskKind::multiple_choice) result.metrics.push_back(accuracy("acc_norm", normalized_hits));
  if (task.kind == TaskKind::last_word) result.metrics.push_back(perplexity(likelihoods));
  return result;
}

}  // namespace qkv
