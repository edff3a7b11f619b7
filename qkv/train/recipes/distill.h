// Distillation on data: the student's next-token distribution q is drawn to the teacher's p, at every token
// of an answer, by a divergence of losses/distillation.h, beside the data's own next token:
//   (1 - alpha) D(p, q) - alpha log q(x[t+1])
// Both read the same tokens, so they must have one vocabulary. Logits exist a chunk of tokens at a time, in
// backward once more.
#pragma once

#include "qkv/train/losses/distillation.h"
#include "qkv/train/metrics.h"
#include "qkv/train/recipes/sft.h"

namespace qkv {

class Distill : public Recipe {
 public:
  // Error if the vocabularies differ in size.
  Distill(const Model& student, const Model& teacher, Adapter* adapter, std::vector<TokenSample> train,
          std::vector<TokenSample> valid, const losses::DistillationOptions& loss, double alpha,
          const TuneConfig& config);
  const char* name() const override { return "distill"; }
  std::unique_ptr<MicroBatch> next() override;
  Tensor loss(const MicroBatch& batch, uint64_t dropout_stream) override;
  // Mean loss per token of the validation samples.
  EvaluationResult evaluate() override;
  Json state() const override;
  void restore(const Json& state) override;
  std::map<std::string, double> take_metrics() override { return metrics_.take(); }

 private:
  struct Work;
  Tensor loss_of(const Batch& batch, const Pass& pass, Metrics& metrics) const;

  const Model &student_, &teacher_;
  Adapter* adapter_;
  losses::DistillationOptions loss_;
  double alpha_;
  TuneConfig config_;
  SampleBatches train_;
  std::unique_ptr<SampleBatches> valid_;
  DataCursor cursor_;
  Metrics metrics_;
};

// Sum over rows of the divergence between both models' logits, on the tape; hidden states are (N, C) of each.
Tensor distillation_loss(const Model& student, const Tensor& hidden, const Model& teacher,
                         const Tensor& teacher_hidden, const losses::DistillationOptions& options);

}  // namespace qkv
