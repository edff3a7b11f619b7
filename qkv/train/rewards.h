// What answers are worth: a weighted sum of rewards, each written as text,
//
//   [WEIGHT*][steps:]KIND[=ARGUMENT]
//
//   exact               1 if the answer is one of the record's "accepted", or its "answer": the number after
//   "the
//                       answer is" (else the last one) for numbers, else the words of the first sentence
//   regex=PATTERN       1 if PCRE2's PATTERN is found in the answer
//   json                1 if the answer is JSON, alone or in a ```json block
//   length=LOW-HIGH     1 for LOW to HIGH tokens, less by 1/HIGH for every token outside, no less than 0
//   overlong=SOFT-MAX   0 up to SOFT tokens, falling to -1 at MAX: DAPO's (Yu et al., arXiv 2503.14476)
//   program=COMMAND     the number that the shell's COMMAND prints for the answer's line of JSON
//                       {"prompt", "completion", and the record's other fields}
//   model=PATH[,PATH]   a sequence classifier's score of the conversation; of several the mean, or as the
//                       options say
//
// With steps: the answer is cut after every separator, every beginning that ends a step is scored, and the
// scores count where the steps end: process rewards (Lightman et al., arXiv 2305.20050).
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "qkv/core/json.h"
#include "qkv/data/prompts.h"
#include "qkv/train/metrics.h"
#include "qkv/train/rollouts.h"

namespace qkv {

// One answer, or the beginning of one.
struct Judged {
  const Prompt* prompt = nullptr;
  std::string_view completion;
  int64_t tokens = 0;  // of the completion
};

class Reward {
 public:
  virtual ~Reward() = default;
  virtual std::vector<double> score(std::span<const Judged> answers) const = 0;
};

struct JudgeOptions {
  double program_timeout = 60;        // seconds for one call of a program
  std::string step_separator = "\n";  // ends a step
  std::string ensemble = "mean";      // of several reward models: mean, min or uncertainty
  double ensemble_penalty = 1;  // uncertainty: mean - penalty x variance (Coste et al., arXiv 2310.02743)
};

struct WeightedReward {
  std::string name;  // "exact", "regex", ..., with a number where a kind comes again
  double weight = 1;
  bool steps = false;
  std::unique_ptr<Reward> reward;
};

class Rewards {
 public:
  // None: all scores are 0.
  Rewards() = default;
  // Error naming the text that is no reward.
  Rewards(const std::vector<std::string>& specifications, const JudgeOptions& options);

  // Sets `score` and `step_scores` of every rollout; `prompts[rollout.prompt]` is what it answers. Adds
  // rewards/NAME/mean and .../std to `metrics`.
  void judge(std::span<Rollout> rollouts, const std::vector<Prompt>& prompts, const Tokenizer& tokenizer,
             Metrics* metrics) const;
  bool any_steps() const;
  const std::vector<WeightedReward>& all() const { return rewards_; }

 private:
  JudgeOptions options_;
  std::vector<WeightedReward> rewards_;
};

// Where steps end: indices of tokens and the text up to there. The last step ends with the answer.
struct StepEnd {
  int64_t token = 0;
  std::string text;
};
std::vector<StepEnd> step_ends(const Rollout& rollout, const Tokenizer& tokenizer,
                               const std::string& separator);

// reward_program.cpp
std::unique_ptr<Reward> make_program_reward(const std::string& command, double timeout);
// reward_model.cpp; Error if a path is no sequence classifier.
std::unique_ptr<Reward> make_model_reward(const std::vector<std::string>& paths, const std::string& ensemble,
                                          double penalty);
// What an ensemble makes of its members' scores.
double combined_scores(std::span<const double> opinions, const std::string& ensemble, double penalty);

}  // namespace qkv
