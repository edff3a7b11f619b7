// Tuning on answers that are labelled good or bad by themselves: the loss of an answer is that of
// losses/unpaired.h (KTO, APO-zero, BCO), of its log-probability by the policy and by a frozen reference.
//
// KTO's k, how far the policy is from the reference, is estimated on mismatched answers: every prompt with
// the answer to another one, always the same, so that without an adapter the reference's log-probabilities of
// these, too, can be taken once at the start.
#pragma once

#include "qkv/data/sample_batches.h"
#include "qkv/train/losses/unpaired.h"
#include "qkv/train/metrics.h"
#include "qkv/train/recipes/running_mean.h"
#include "qkv/train/recipes/sft.h"

namespace qkv {

struct LabelledSample {
  TokenSample sample;
  bool good = false;
};

struct KtoOptions {
  int64_t batch_answers = 16;
  int64_t max_length = 0;       // mismatched prompts and answers are cut to it; 0: not
  bool keep_reference = false;  // always so without an adapter
  losses::UnpairedOptions loss;
};

class Kto : public Recipe {
 public:
  // Error if there is only one sample: a mismatched answer takes two.
  Kto(const Model& model, Adapter* adapter, std::vector<LabelledSample> train,
      std::vector<LabelledSample> valid, const KtoOptions& options, const TuneConfig& config);
  const char* name() const override { return "kto"; }
  std::unique_ptr<MicroBatch> next() override;
  Tensor loss(const MicroBatch& batch, uint64_t dropout_stream) override;
  // The mean loss of the validation answers.
  EvaluationResult evaluate() override;
  Json state() const override;
  void restore(const Json& state) override;
  std::map<std::string, double> take_metrics() override { return metrics_.take(); }

 private:
  struct Work;
  struct Samples {
    std::vector<LabelledSample> samples;
    std::vector<size_t> partner;               // whose answer joins this one's prompt
    std::vector<float> reference, mismatched;  // the reference's log-probabilities, if they are kept
  };
  bool is_kto() const { return options_.loss.loss == losses::UnpairedLoss::kto; }
  void find_partners(Samples& samples) const;
  void keep_reference(Samples& samples) const;
  std::unique_ptr<Work> batch_of(const Samples& from, const std::vector<size_t>& which) const;
  losses::UnpairedLosses<float> losses_of(const Work& work, std::span<const float> policy, Metrics& metrics,
                                          RunningMean& rewards) const;

  const Model& model_;
  Adapter* adapter_;
  KtoOptions options_;
  TuneConfig config_;
  Samples train_, valid_;
  ItemOrder order_;
  DataCursor cursor_;
  RunningMean rewards_;  // BCO's baseline
  Metrics metrics_;
};

}  // namespace qkv
