// Preference tuning on pairs of answers: batches, the log-probabilities of both answers by the policy and the
// reference, resume, and the numbers that are reported. What is made of them is a recipe's: losses_of().
#pragma once

#include <span>

#include "qkv/data/sample_batches.h"
#include "qkv/train/losses/dpo.h"
#include "qkv/train/metrics.h"
#include "qkv/train/recipes/sft.h"
#include "qkv/train/trainer.h"

namespace qkv {

struct PreferencePair {
  TokenSample chosen, rejected;
  float margin = 0;  // by how much the chosen answer is better, where the data say so
};

struct PairOptions {
  int64_t batch_pairs = 8;
  bool averages = false;  // log-probabilities are averaged over an answer's tokens instead of summed
  bool reference =
      false;  // there is a reference: with an adapter the model without it, else the model at the start
  bool keep_reference = false;  // of all pairs, taken once; it is always so without an adapter
};

// One element per pair.
struct PairLogProbs {
  std::span<const float> chosen, rejected;
  std::span<const float> reference_chosen, reference_rejected;  // empty without a reference
  std::span<const float> chosen_tokens;                         // lengths of the chosen answers
};

class PairRecipe : public Recipe {
 public:
  std::unique_ptr<MicroBatch> next() override;
  Tensor loss(const MicroBatch& batch, uint64_t dropout_stream) override;
  // The mean loss of the validation pairs; says how often the chosen answer has the larger reward, and by how
  // much.
  EvaluationResult evaluate() override;
  Json state() const override;
  void restore(const Json& state) override;
  std::map<std::string, double> take_metrics() override { return metrics_.take(); }

  // The share of validation pairs whose chosen answer had the larger reward when last evaluated.
  double valid_accuracy() const { return valid_accuracy_; }

 protected:
  PairRecipe(const Model& model, Adapter* adapter, std::vector<PreferencePair> train,
             std::vector<PreferencePair> valid, const PairOptions& options, const TuneConfig& config);
  // Losses of pairs with their gradients by the policy's log-probabilities, and what is to be reported beside
  // the rewards in `metrics`.
  virtual losses::PairLosses<float> losses_of(const PairLogProbs& pairs, Metrics& metrics) const = 0;
  // Called for every training batch, before its loss: what is learned from the batches themselves (a running
  // mean).
  virtual void observe(const PairLogProbs&) {}

 private:
  struct Work;
  struct Pairs {
    std::vector<PreferencePair> pairs;
    std::vector<float> chosen, rejected;  // the reference's, if they are kept
  };
  std::unique_ptr<Work> batch_of(const Pairs& from, const std::vector<size_t>& which) const;
  // Chosen answers first, then the rejected ones; empty without a reference.
  std::vector<float> reference(const Work& work) const;
  PairLogProbs log_probs_of(const Work& work, std::span<const float> policy,
                            std::span<const float> reference) const;
  losses::PairLosses<float> reported_losses(const PairLogProbs& pairs, Metrics& metrics) const;
  void keep_reference(Pairs& pairs) const;

  const Model& model_;
  Adapter* adapter_;
  Pairs train_, valid_;
  PairOptions options_;
  TuneConfig config_;
  ItemOrder order_;
  DataCursor cursor_;
  Metrics metrics_;
  double valid_accuracy_ = 0;
};

}  // namespace qkv
