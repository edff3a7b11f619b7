// Speculative decoding (Leviathan et al., arXiv 2211.17192): something cheap proposes the next tokens, and
// one pass of the model checks all of them, since a pass of a few tokens reads the weights as often as a pass
// of one.
//
// The engine draws from the model's own distribution at every position, as it would without drafts, and goes
// on while what it draws is what was proposed. So the answer is the same, greedy or sampled with a seed,
// whatever is proposed: drafts decide only how many tokens a pass yields. A draft that the model gives
// probability p is accepted with probability p, which is the best that a deterministic proposal can have.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "qkv/models/model.h"
#include "qkv/text/tokenizer.h"

namespace qkv {

using RequestId = uint64_t;

struct DraftJob {
  RequestId request = 0;
  std::span<const int32_t> tokens;  // prompt and answer so far
  int64_t limit = 0;                // tokens to propose at most
  std::vector<int32_t> draft;       // the proposal, may stay empty
};

class Drafter {
 public:
  virtual ~Drafter() = default;
  virtual void propose(std::span<DraftJob> jobs) = 0;
  // The request is over.
  virtual void forget(RequestId) {}
};

// Prompt lookup (Saxena, "Prompt Lookup Decoding", 2023): what followed the latest earlier occurrence of the
// last tokens, the longest match first. Free, and good wherever answers copy: summaries, edits, code,
// retrieval.
class PromptLookup : public Drafter {
 public:
  // Matches of max_match down to min_match tokens. Error unless 1 <= min_match <= max_match.
  explicit PromptLookup(int min_match = 2, int max_match = 4);
  void propose(std::span<DraftJob> jobs) override;

 private:
  int min_match_, max_match_;
};

// A smaller model of the same vocabulary proposes its likeliest tokens, for all sequences together, until it
// is less sure than `min_probability`.
class ModelDrafter : public Drafter {
 public:
  // The model must outlive the drafter. Error if its state cannot be shortened, which recurrent models'
  // cannot.
  explicit ModelDrafter(const Model& model, DType compute_type = DType::f32, float min_probability = 0.4f);
  void propose(std::span<DraftJob> jobs) override;
  void forget(RequestId request) override { memories_.erase(request); }

 private:
  struct Memory {
    std::vector<int32_t> tokens;  // exactly those in the state
    SequenceState state;
  };
  // The likeliest next token of every job, and whether the model is sure enough of it; runs what its memory
  // lacks of `tokens` and `draft`.
  std::vector<std::pair<int32_t, bool>> next_tokens(std::span<DraftJob* const> jobs);

  const Model& model_;
  DType compute_type_;
  float min_probability_;
  std::unordered_map<RequestId, Memory> memories_;
};

// Error unless both vocabularies spell every id alike; ids that only one of them has may be at the end
// (padding).
void check_same_vocabulary(const Tokenizer& target, const Tokenizer& draft);

// How many tokens to propose: more after proposals that were accepted whole, fewer after others, none for a
// while where nothing is ever accepted.
class DraftLength {
 public:
  explicit DraftLength(int64_t limit) : limit_(limit) {}
  int64_t next();
  void report(int64_t proposed, int64_t accepted);

 private:
  int64_t limit_;
  int64_t length_ = 4;
  int64_t pause_ = 0;       // passes to sit out
  int64_t last_pause_ = 0;  // grows while drafts fail
};

}  // namespace qkv
