// Preference tuning with a frozen reference: loss = sum over pairs of losses/dpo.h's family, of the summed
// (or averaged) log-probabilities of the chosen and the rejected answer. The reference is the model at the
// start: with an adapter, the model without it, asked batch by batch; without one, its log-probabilities of
// all pairs, taken once and kept with the checkpoints.
#pragma once

#include "qkv/data/sample_batches.h"
#include "qkv/train/losses/dpo.h"
#include "qkv/train/recipes/sft.h"
#include "qkv/train/trainer.h"

namespace qkv {

struct PreferencePair {
  TokenSample chosen, rejected;
};

class Dpo : public Recipe {
 public:
  Dpo(const Model& model, Adapter* adapter, std::vector<PreferencePair> train,
      std::vector<PreferencePair> valid, int64_t batch_pairs, const losses::DpoOptions& loss,
      const TuneConfig& config);
  const char* name() const override { return "dpo"; }
  std::unique_ptr<MicroBatch> next() override;
  Tensor loss(const MicroBatch& batch, uint64_t dropout_stream) override;
  // The mean loss of the validation pairs; says how often the chosen answer has the larger reward, and by how
  // much.
  EvaluationResult evaluate() override;
  Json state() const override;
  void restore(const Json& state) override;

  // The share of validation pairs whose chosen answer had the larger reward when last evaluated.
  double valid_accuracy() const { return valid_accuracy_; }

 private:
  struct Work;
  struct Pairs {
    std::vector<PreferencePair> pairs;
    std::vector<float> chosen, rejected;  // the reference's, if they are kept
  };
  struct Logps {
    std::vector<float> chosen, rejected;
  };
  std::unique_ptr<Work> batch_of(const Pairs& from, std::vector<size_t> which) const;
  Tensor log_probs(const Work& work, const Pass& pass) const;
  Logps reference(const Work& work) const;
  void keep_reference(Pairs& pairs);

  const Model& model_;
  Adapter* adapter_;
  Pairs train_, valid_;
  int64_t batch_pairs_;
  losses::DpoOptions loss_;
  TuneConfig config_;
  DataCursor cursor_;
  std::vector<uint32_t> order_;
  int64_t prepared_epoch_ = -1;
  double valid_accuracy_ = 0;
};

}  // namespace qkv
