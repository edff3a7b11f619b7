#include "qkv/train/recipes/pretrain.h"

#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/tensor/ops.h"

namespace qkv {

struct Pretrain::Work : MicroBatch {
  Batch batch;
};

Pretrain::Pretrain(const Model& model, std::shared_ptr<const TokenFile> train, std::shared_ptr<const TokenFile> valid, const PretrainConfig& config)
    : model_(model), config_(config), train_(std::move(train), config.sequence_length, config.seed) {
  require(config.sequence_length <= model.info().max_positions, "pretrain: data.sequence_length {} is longer than the model's {} positions",
          config.sequence_length, model.info().max_positions);
  require(train_.file().vocabulary() <= model.info().vocabulary, "pretrain: the tokenizer has {} ids but the embedding only {} rows",
          train_.file().vocabulary(), model.info().vocabulary);
  if (valid && valid->tokens() > 1) {
    const int64_t length = std::min(config.sequence_length, valid->tokens() - 1);
    valid_ = std::make_unique<PackedWindows>(std::move(valid), length, config.seed);
  }
}

double mean_context(const ops::PackedSequences& sequences) {
  double squares = 0;
  for (size_t s = 0; s + 1 < sequences.offsets.size(); ++s) {
    const auto n = static_cast<double>(sequences.offsets[s + 1] - sequences.offsets[s]);
    squares += n * n;
  }
  return sequences.offsets.back() > 0 ? squares / static_cast<double>(sequences.offsets.back()) : 0;
}

std::unique_ptr<MicroBatch> Pretrain::next() {
  auto work = std::make_unique<Work>();
  work->batch = train_.next(config_.batch_size, cursor_);
  work->tokens = static_cast<int64_t>(work->batch.tokens.size());
  work->counted = static_cast<double>(work->batch.counted);
  work->context = mean_context(work->batch.pass.sequences);
  return work;
}

Tensor Pretrain::loss(const MicroBatch& batch, uint64_t dropout_stream) {
  const Batch& data = static_cast<const Work&>(batch).batch;
  Pass pass = data.pass;
  pass.compute_type = config_.compute_type;
  pass.dropout = config_.dropout;
  pass.dropout_seed = config_.seed;
  pass.dropout_stream = dropout_stream;
  pass.checkpoint_activations = config_.checkpoint_activations;
  ops::CrossEntropyOptions options;
  options.z_loss = config_.z_loss;
  options.label_smoothing = config_.label_smoothing;
  return model_.cross_entropy(model_.forward(data.tokens, pass), data.targets, options);
}

EvaluationResult Pretrain::evaluate() {
  EvaluationResult result;
  if (!valid_) return result;
  const NoGrad off;
  const int64_t windows = std::min(valid_->windows_in_order(), std::max<int64_t>(1, config_.eval_tokens / valid_->length()));
  double total = 0;
  for (int64_t begin = 0; begin < windows; begin += config_.batch_size) {
    Batch batch = valid_->in_order(begin, std::min(config_.batch_size, windows - begin));
    batch.pass.compute_type = config_.compute_type;
    const Tensor hidden = model_.forward(batch.tokens, batch.pass);
    total += model_.cross_entropy(hidden, batch.targets).item();
    result.tokens += batch.counted;
  }
  result.loss = result.tokens > 0 ? total / static_cast<double>(result.tokens) : 0;
  return result;
}

Json Pretrain::state() const { return {{"epoch", cursor_.epoch}, {"window", cursor_.window}}; }

void Pretrain::restore(const Json& state) {
  const JsonView view(state, "pretrain state");
  cursor_.epoch = view.integer("epoch");
  cursor_.window = view.integer("window");
}

}  // namespace qkv
