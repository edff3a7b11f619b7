// Preferences that a model makes of its own answers, by principles instead of people.
//
//   revise  the answer is criticized by a principle and rewritten; the rewritten one is preferred to the
//   first
//           (Bai et al., "Constitutional AI", arXiv 2212.08073)
//   judge   of two answers the model says which keeps to a principle better: the log-odds of "A" against "B",
//           asked in both orders so that neither place has an advantage (RLAIF: Lee et al., arXiv 2309.00267)
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "qkv/data/prompts.h"
#include "qkv/models/bundle.h"
#include "qkv/train/rollouts.h"

namespace qkv {

struct SelfCritiqueOptions {
  bool judge = false;
  std::vector<std::string> principles;  // taken in turn; empty: default_principles()
  double min_margin = 0;                // judge: pairs with smaller log-odds are left out
  int64_t batch = 32;                   // prompts at a time
  RolloutOptions rollout;
};
const std::vector<std::string>& default_principles();
// One a line; empty lines and those that begin with '#' are passed over. Error if none is left.
std::vector<std::string> read_principles(const std::string& path);

struct SelfCritiqueResult {
  // Preference data: {"prompt", "chosen", "rejected", "principle"}, with "critique" or "margin".
  std::vector<Json> pairs;
  int64_t alike = 0;      // both answers were the same, or one of them was empty
  int64_t undecided = 0;  // judge: by less than min_margin
};

// `prompts` are read and not yet tokenized.
SelfCritiqueResult self_critique(const Bundle& bundle, const std::vector<Prompt>& prompts,
                                 const SelfCritiqueOptions& options,
                                 const std::function<void(int64_t done)>& progress = {});

}  // namespace qkv
