// What recipes that learn from their own answers share: a generation of answers is sampled with the current
// weights and judged, then trained on for a number of optimizer steps (minibatches x iterations), each of
// which takes its part of the answers in the order of a shuffle. A checkpoint between two steps of a
// generation holds its answers, so that a resumed run goes on bit for bit.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "qkv/train/losses/policy.h"
#include "qkv/train/recipes/sft.h"
#include "qkv/train/rewards.h"
#include "qkv/train/rollouts.h"

namespace qkv {

struct OnPolicyConfig {
  TuneConfig tune;  // batch_tokens: of forwards that only score
  RolloutOptions rollout;
  int64_t prompts = 8;             // of a generation
  int64_t group = 8;               // answers to each
  int64_t minibatches = 1;         // optimizer steps for one pass over a generation
  int64_t iterations = 1;          // passes
  int64_t accumulation = 1;        // the loop's forwards per step
  double missing_end_penalty = 0;  // taken from the score of an answer that was cut off
  // DAPO's dynamic sampling (arXiv 2503.14476): prompts whose answers all score alike teach nothing and are
  // replaced by others, in so many rounds at most; 1: they are kept.
  int64_t sampling_rounds = 1;
};

class OnPolicy : public Recipe {
 public:
  struct Parts {
    const Model& model;
    Adapter* adapter = nullptr;        // what is trained; null: the model
    const Model* reference = nullptr;  // a frozen copy, where there is no adapter to switch off; or null
    const Tokenizer& tokenizer;
    const Rewards& rewards;
    std::vector<Prompt> train, valid;  // tokenized
  };
  OnPolicy(Parts parts, const OnPolicyConfig& config);

  std::unique_ptr<MicroBatch> next() final;
  Tensor loss(const MicroBatch& batch, uint64_t dropout_stream) final;
  // Answers the held-out prompts and says their mean score; no loss is given.
  EvaluationResult evaluate() final;
  Json state() const final;
  void restore(const Json& state) final;
  std::map<std::string, double> take_metrics() final { return metrics_.take(); }

  double valid_score() const { return valid_score_; }

 protected:
  // One forward's rollouts, and whether the weights are still those that they were sampled with.
  struct Work : MicroBatch {
    std::vector<Rollout> rollouts;
    bool fresh = false;
  };

  virtual bool needs_reference() const = 0;
  // Whole groups, judged and scored, to what is trained on: any number of items of item_size() rollouts.
  virtual std::vector<Rollout> prepare(std::vector<Rollout> rollouts) = 0;
  virtual size_t item_size() const { return 1; }
  // What the loss of these rollouts is a sum over.
  virtual double count(std::span<const Rollout> rollouts) const = 0;
  // The sum of losses. `rows` are of rollout_batch(work.rollouts).
  virtual Tensor loss_of(const Work& work, const AnswerRows& rows) = 0;
  // Called with the rows of all rollouts of a generation, off the tape.
  virtual void scored(std::span<Rollout>, const AnswerRows&) {}
  // Numbers of the recipe's own that change in training.
  virtual Json own_state() const;
  virtual void restore_own(const JsonView&) {}

  const Model& model() const { return parts_.model; }
  const OnPolicyConfig& config() const { return config_; }
  double temperature() const { return config_.rollout.temperature; }
  Metrics& metrics() { return metrics_; }
  // A mean loss with its gradient by `input`, times `factor`: the loop wants sums over what is counted.
  static Tensor summed(const losses::TokenLoss<float>& mean, const Tensor& input, double factor);
  // score, with all step scores.
  static double total_score(const Rollout& rollout);
  // One member of all rollouts, one after the other.
  static std::vector<float> all(std::span<const Rollout> rollouts, std::vector<float> Rollout::*member);

 private:
  void generate();
  std::vector<size_t> draw_prompts();
  std::vector<Rollout> sample(const std::vector<Prompt>& from, const std::vector<size_t>& which,
                              int64_t group, uint64_t stream) const;
  void note_answers(std::span<const Rollout> rollouts);
  int64_t micro_batches() const { return config_.iterations * config_.minibatches * config_.accumulation; }

  Parts parts_;
  OnPolicyConfig config_;
  Metrics metrics_;
  DataCursor cursor_;  // window: prompts used of the epoch
  std::vector<uint32_t> prompt_order_;
  int64_t prepared_epoch_ = -1;
  int64_t generation_ = 0;  // how many there have been
  int64_t micro_ = 0;       // forwards done of this one
  std::vector<Rollout> items_;
  double valid_score_ = 0;
};

}  // namespace qkv
