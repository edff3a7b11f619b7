// Models tuned from one start, side by side: each answers held-out prompts, and rewards say how well. Beside
// the mean reward with its interval stand the difference from the first model on the same prompts, how often
// its answer beats that model's, and how far its distribution has moved away.
#pragma once

#include <string>
#include <vector>

#include "qkv/core/json.h"
#include "qkv/train/rewards.h"

namespace qkv {

// "NAME", "NAME=ADAPTER" over the base or "NAME=MODEL".
struct NamedPolicy {
  std::string name, path;
};
NamedPolicy parse_policy(const std::string& text);

// "NAME=REWARD@PROMPTS.jsonl", a reward as in train/rewards.h.
struct Measure {
  std::string name, reward, prompts;
};
Measure parse_measure(const std::string& text);

struct ComparisonOptions {
  RolloutOptions rollout;
  int64_t limit = 0;  // prompts of a measure at most, spread over its file; 0: all
  std::string chat = "auto";
  JudgeOptions judge;
  int64_t batch_tokens = 4096;
};

struct PolicyScore {
  std::string measure, policy;
  int64_t answers = 0;
  double reward = 0, interval = 0;     // mean, half of its 95 % interval
  double gain = 0, gain_interval = 0;  // over the first policy, prompt by prompt
  double win_rate = 0;                 // share of prompts where it scores more, ties counting half
  double divergence = 0;               // KL(policy | first policy), nats per answer, from its own answers
  double length = 0;                   // tokens
  std::string prompt, answer;          // one of them
};

// By measure, then by policy. Temperature 0 compares greedy answers; the divergence is then of those alone.
std::vector<PolicyScore> compare_policies(const std::string& base, const std::vector<NamedPolicy>& policies,
                                          const std::vector<Measure>& measures,
                                          const ComparisonOptions& options);

Json to_json(const PolicyScore& score);
// A page with the table and a bar chart of every measure.
void write_comparison_page(const std::string& path, const std::string& title,
                           const std::vector<PolicyScore>& scores);

}  // namespace qkv
