// Scoring a model on questions with checkable answers: greedy completions, exact-match scoring, per-kind results beside
// what guessing would score.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "qkv/engine/engine.h"
#include "qkv/models/bundle.h"

namespace qkv {

struct AnswerQuestion {
  std::string kind, prompt;
  std::vector<std::string> accepted;
  bool numeric = false;
  double chance = 0;  // of a guess among the answers that fit
};

// Reads JSON lines {"kind", "prompt", "answer", "accepted", "numeric", "chance"}; the last three may be missing. `limit` > 0:
// at most that many, spread evenly over the file. Error `<file>:<line>: ...`.
std::vector<AnswerQuestion> read_questions(const std::string& path, int64_t limit = 0);

struct AnswerScore {
  std::string kind;  // "all" for the total
  int64_t questions = 0, correct = 0;
  double chance = 0;       // mean chance of a guess
  double standard_error = 0;  // of correct / questions
  double accuracy() const { return questions > 0 ? static_cast<double>(correct) / static_cast<double>(questions) : 0; }
};

struct AnswerSample {
  std::string prompt, expected, given;
  bool correct = false;
};

struct AnswerReport {
  std::vector<AnswerScore> by_kind;
  AnswerScore total;
  std::vector<AnswerSample> samples;  // every question with its answer
};

// Answers all questions greedily, in batches; `max_new_tokens` each, ending at the first line's end.
AnswerReport score_answers(const Bundle& bundle, const std::vector<AnswerQuestion>& questions, int64_t max_new_tokens = 48,
                           const std::function<void(int64_t done)>& progress = {});

}  // namespace qkv
