// Next-token prediction on packed documents: loss = -sum over targets of log p(x[t+1] | x[<=t]).
#pragma once

#include "qkv/data/batches.h"
#include "qkv/models/model.h"
#include "qkv/train/trainer.h"

namespace qkv {

struct PretrainConfig {
  int64_t sequence_length = 256;
  int64_t batch_size = 8;  // windows per micro-batch
  float dropout = 0;
  uint64_t seed = 0;
  DType compute_type = DType::f32;
  bool checkpoint_activations = false;
  float z_loss = 0, label_smoothing = 0;
  int64_t eval_tokens = 100000;  // of the validation file, from its start
};

class Pretrain : public Recipe {
 public:
  // `valid` may be null: no evaluation.
  Pretrain(const Model& model, std::shared_ptr<const TokenFile> train, std::shared_ptr<const TokenFile> valid, const PretrainConfig& config);
  const char* name() const override { return "pretrain"; }
  std::unique_ptr<MicroBatch> next() override;
  Tensor loss(const MicroBatch& batch, uint64_t dropout_stream) override;
  EvaluationResult evaluate() override;
  Json state() const override;
  void restore(const Json& state) override;

 private:
  struct Work;
  const Model& model_;
  PretrainConfig config_;
  PackedWindows train_;
  std::unique_ptr<PackedWindows> valid_;
  DataCursor cursor_;
};

// The mean number of keys a query attends to in these sequences, doubled for causality's halving: what FLOP counts expect.
double mean_context(const ops::PackedSequences& sequences);

}  // namespace qkv
