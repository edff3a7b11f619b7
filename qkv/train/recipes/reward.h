// Reward models: the loss of a pair is -log sigmoid(score of the chosen answer - score of the rejected one -
// margin) + centering (their sum)^2 (losses/reward_model.h), a sequence's score being that of its last token.
#pragma once

#include "qkv/models/score_model.h"
#include "qkv/train/losses/reward_model.h"
#include "qkv/train/recipes/pairs.h"

namespace qkv {

struct RewardOptions {
  int64_t batch_pairs = 8;
  bool margins = false;  // the data's margins count
  double centering = 0;  // of the scores' sum, squared; 0: scores may drift together
};

class RewardModel : public Recipe {
 public:
  RewardModel(const ScoreModel& model, Adapter* adapter, std::vector<PreferencePair> train,
              std::vector<PreferencePair> valid, const RewardOptions& options, const TuneConfig& config);
  const char* name() const override { return "reward"; }
  std::unique_ptr<MicroBatch> next() override;
  Tensor loss(const MicroBatch& batch, uint64_t dropout_stream) override;
  // The mean loss of the validation pairs; says in how many of them the chosen answer has the larger score,
  // with a 95 % interval, beside how often the longer answer is the chosen one.
  EvaluationResult evaluate() override;
  Json state() const override;
  void restore(const Json& state) override;
  std::map<std::string, double> take_metrics() override { return metrics_.take(); }

  // The share of validation pairs whose chosen answer had the larger score when last evaluated.
  double valid_accuracy() const { return valid_accuracy_; }

 private:
  struct Work;
  std::unique_ptr<Work> batch_of(const std::vector<PreferencePair>& from,
                                 const std::vector<size_t>& which) const;
  Tensor scores(const Work& work, const Pass& pass) const;
  losses::RewardLosses<float> losses_of(const Work& work, std::span<const float> scores,
                                        Metrics& metrics) const;

  const ScoreModel& model_;
  Adapter* adapter_;
  std::vector<PreferencePair> train_, valid_;
  RewardOptions options_;
  TuneConfig config_;
  ItemOrder order_;
  DataCursor cursor_;
  Metrics metrics_;
  double valid_accuracy_ = 0;
};

}  // namespace qkv
