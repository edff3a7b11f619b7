// A model with one output per token instead of a vocabulary: Hugging Face's ...ForSequenceClassification with
// num_labels 1, which is what reward models are kept as ("score.weight"). A decorator over the causal model
// of the same config.json; a sequence's score is that of its last token.
#pragma once

#include <memory>

#include "qkv/models/model.h"

namespace qkv {

class ScoreModel : public Model {
 public:
  // `base`: made from `config` without a vocabulary head of its own. `score_optional`: the weights may come
  // from a model that has no score yet, and are then zero.
  ScoreModel(std::unique_ptr<Model> base, const Json& config, bool score_optional);

  // (S) f32: one number per sequence of hidden states (T, C), on the tape.
  Tensor scores(const Tensor& hidden, const ops::PackedSequences& sequences) const;
  Tensor& score_weight() { return score_; }  // (1, C)

  const ModelInfo& info() const override { return base_->info(); }
  Tensor forward(const std::vector<int32_t>& tokens, const Pass& pass) const override {
    return base_->forward(tokens, pass);
  }
  const Tensor& head() const override { return base_->head(); }
  Tensor head_bias() const override { return base_->head_bias(); }
  ops::CrossEntropyOptions logit_options() const override { return base_->logit_options(); }
  Tensor head_input(const Tensor& hidden) const override { return base_->head_input(hidden); }
  SequenceState make_state(const CacheOptions& options) const override { return base_->make_state(options); }
  using Model::make_state;
  uint64_t state_bytes(const CacheOptions& options, int64_t tokens, int64_t pass_tokens) const override {
    return base_->state_bytes(options, tokens, pass_tokens);
  }
  std::vector<WeightRow> weight_table() const override;
  Json hf_config() const override;
  void visit(const std::string& prefix, const ParameterVisitor& visitor) override;
  void visit_linears(const std::string& prefix, const LinearVisitor& visitor) override {
    base_->visit_linears(prefix, visitor);
  }

 private:
  std::unique_ptr<Model> base_;
  std::unique_ptr<Json> source_;
  bool score_optional_;
  Tensor score_;  // (1, C)
};

// Whether a config.json is that of such a model.
bool is_score_config(const Json& config);
// The config.json of the score model over the causal model that `config` is of.
Json score_config(const Json& config);
// A model without memory for a config.json of either kind.
std::unique_ptr<Model> make_score_model(const Json& config, const std::string& where, bool score_optional);

}  // namespace qkv
