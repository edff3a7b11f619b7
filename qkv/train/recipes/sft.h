// Supervised fine-tuning: loss = -sum over the assistant's tokens of log p(x[t+1] | x[<=t]), samples packed
// without attention between them.
#pragma once

#include "qkv/data/sample_batches.h"
#include "qkv/models/adapter.h"
#include "qkv/models/model.h"
#include "qkv/train/trainer.h"

namespace qkv {

struct TuneConfig {
  int64_t batch_tokens = 2048;  // per micro-batch
  float dropout = 0;
  uint64_t seed = 0;
  DType compute_type = DType::f32;
  bool checkpoint_activations = false;
  float embedding_noise = 0;              // NEFTune's alpha; 0: off
  int64_t attention_group = 0;            // LongLoRA's; 0: full attention
  float z_loss = 0, label_smoothing = 0;  // of sft
};

class Sft : public Recipe {
 public:
  // `adapter`, if one is trained, gets its dropout's stream from the loop. `valid` may be empty: no
  // evaluation.
  Sft(const Model& model, Adapter* adapter, std::vector<TokenSample> train, std::vector<TokenSample> valid,
      const TuneConfig& config);
  const char* name() const override { return "sft"; }
  std::unique_ptr<MicroBatch> next() override;
  Tensor loss(const MicroBatch& batch, uint64_t dropout_stream) override;
  EvaluationResult evaluate() override;
  Json state() const override;
  void restore(const Json& state) override;

 private:
  struct Work;
  const Model& model_;
  Adapter* adapter_;
  TuneConfig config_;
  SampleBatches train_;
  std::unique_ptr<SampleBatches> valid_;
  DataCursor cursor_;
};

// The pass's training settings; the adapter's mask is of this call's stream.
void set_training(Pass& pass, Adapter* adapter, const TuneConfig& config, uint64_t dropout_stream);

}  // namespace qkv
