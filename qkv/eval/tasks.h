// Evaluation tasks as lm-evaluation-harness scores them: multiple choice by log-likelihood (acc, acc_norm)
// and last-word prediction (acc, perplexity), with standard errors. A task is a reader of its data files and
// a prompt; files may be in the layout of the task's own distribution or in the common instruction layout.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "qkv/eval/scoring.h"
#include "qkv/models/bundle.h"

namespace qkv {

struct ChoiceQuestion {
  // One context for all choices, or one per choice (WinoGrande puts each option into the sentence).
  std::vector<std::string> contexts;
  std::vector<std::string>
      continuations;  // what is scored, the space before it included; one for all or one per choice
  std::vector<std::string> answers;  // their texts for length normalization; one per choice
  size_t correct = 0;
  size_t choices() const { return answers.size(); }
};

enum class TaskKind {
  multiple_choice,  // acc, acc_norm
  partial,          // multiple choice where the contexts differ: acc only
  last_word,        // acc (greedy), perplexity
};

struct Task {
  const char* name;  // "arc_easy"
  TaskKind kind;
  const char* about;  // one line for help
  // Error `<path>:<line>: ...` for an item that cannot be read.
  std::vector<ChoiceQuestion> (*read)(const std::string& path);
};

// All tasks: lambada, hellaswag, arc_easy, arc_challenge, piqa, winogrande.
const std::vector<Task>& tasks();
// Error listing the names otherwise.
const Task& task_named(const std::string& name);

struct Metric {
  std::string name;  // "acc", "acc_norm", "perplexity"
  double value = 0, standard_error = 0;
};

struct TaskResult {
  std::string task;
  int64_t questions = 0;
  double chance = 0;  // accuracy of a random choice; 0 where that is nothing
  std::vector<Metric> metrics;
};

struct TaskOptions {
  int64_t limit = 0;         // at most this many questions, spread evenly over the file; 0: all
  bool add_special = false;  // put the vocabulary's BOS before every context (the harness's add_bos_token)
  ScoringOptions scoring;
};

TaskResult run_task(const Bundle& bundle, const Task& task, const std::string& path,
                    const TaskOptions& options = {},
                    const std::function<void(int64_t done, int64_t total)>& progress = {});

}  // namespace qkv
