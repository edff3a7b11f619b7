#include "qkv/train/recipes/sft.h"

#include <nlohmann/json.hpp>

#include "qkv/tensor/ops.h"
#include "qkv/train/answers.h"
#include "qkv/train/recipes/pretrain.h"

namespace qkv {

struct Sft::Work : MicroBatch {
  Batch batch;
};

void set_training(Pass& pass, Adapter* adapter, const TuneConfig& config, uint64_t dropout_stream) {
  pass.compute_type = config.compute_type;
  pass.dropout = config.dropout;
  pass.dropout_seed = config.seed;
  pass.dropout_stream = dropout_stream;
  pass.checkpoint_activations = config.checkpoint_activations;
  pass.embedding_noise = config.embedding_noise;
  pass.attention_group = config.attention_group;
  if (adapter == nullptr) return;
  // Streams of one call: the layers' from its beginning, the adapter's from its middle.
  adapter->control().dropout = static_cast<float>(adapter->config().dropout);
  adapter->control().dropout_seed = config.seed;
  adapter->control().dropout_stream = dropout_stream + (1u << 19);
}

Sft::Sft(const Model& model, Adapter* adapter, std::vector<TokenSample> train, std::vector<TokenSample> valid,
         const TuneConfig& config)
    : model_(model),
      adapter_(adapter),
      config_(config),
      train_(std::move(train), config.batch_tokens, config.seed) {
  if (!valid.empty())
    valid_ = std::make_unique<SampleBatches>(std::move(valid), config.batch_tokens, config.seed);
}

std::unique_ptr<MicroBatch> Sft::next() {
  auto work = std::make_unique<Work>();
  work->batch = train_.next(cursor_);
  work->tokens = static_cast<int64_t>(work->batch.tokens.size());
  work->counted = static_cast<double>(work->batch.counted);
  work->context = mean_context(work->batch.pass.sequences);
  return work;
}

Tensor Sft::loss(const MicroBatch& batch, uint64_t dropout_stream) {
  const Batch& data = static_cast<const Work&>(batch).batch;
  Pass pass = data.pass;
  set_training(pass, adapter_, config_, dropout_stream);
  ops::CrossEntropyOptions options;
  options.z_loss = config_.z_loss;
  options.label_smoothing = config_.label_smoothing;
  const CountedRows counted = counted_rows(data.targets, data.pass.sequences);
  return model_.cross_entropy(take_rows(model_.forward(data.tokens, pass), counted), counted.targets,
                              options);
}

EvaluationResult Sft::evaluate() {
  EvaluationResult result;
  if (!valid_) return result;
  const NoGrad off;
  double total = 0;
  for (size_t begin = 0, end = 0; begin < valid_->samples().size(); begin = end) {
    Batch batch = valid_->in_order(begin, end);
    batch.pass.compute_type = config_.compute_type;
    const CountedRows counted = counted_rows(batch.targets, batch.pass.sequences);
    total += static_cast<double>(
        model_.cross_entropy(take_rows(model_.forward(batch.tokens, batch.pass), counted), counted.targets)
            .item());
    result.tokens += batch.counted;
  }
  result.loss = result.tokens > 0 ? total / static_cast<double>(result.tokens) : 0;
  return result;
}

Json Sft::state() const {
  return {{"epoch", cursor_.epoch}, {"sample", cursor_.window}};
}

void Sft::restore(const Json& state) {
  const JsonView view(state, "sft state");
  cursor_.epoch = view.integer("epoch");
  cursor_.window = view.integer("sample");
}

}  // namespace qkv
