// The one transformer decoder (and, without causality, encoder) that all attention families are rows of: what
// distinguishes a family is its DecoderConfig, read from config.json, and its weight table.
#pragma once

#include <optional>

#include "qkv/models/decoder_block.h"
#include "qkv/models/model.h"
#include "qkv/nn/rope.h"

namespace qkv {

// What a layer has of its own.
struct LayerVariant {
  int64_t window = 0;  // of its attention, 0: all
  int rope = 0;        // which of DecoderConfig::ropes turns its heads; -1: none
  bool dense = false;  // a plain feed-forward network although the block has experts
};

struct DecoderConfig {
  ModelInfo info;
  BlockConfig block;
  std::vector<LayerVariant> layers;  // one per layer, or empty: all alike
  std::vector<RopeConfig> ropes;     // empty: positions do not turn heads
  // Learned positions: a table of max_positions + position_offset rows, of which position p takes row
  // p + position_offset.
  bool learned_positions = false;
  int64_t position_offset = 0;
  int64_t token_types = 0;  // > 0: a table of so many rows, added by each token's type
  float embedding_scale = 1;
  std::optional<NormConfig> embedding_norm;
  std::optional<NormConfig> final_norm;
  // Width of the embedding and of what the head reads, where it differs from the channels; 0: the same.
  int64_t embedding_width = 0;
  bool f32_residual = false;  // whatever the blocks compute in
  float logit_scale = 1, logit_softcap = 0;
  bool headless = false;  // no vocabulary head: an encoder whose hidden states are its result
  bool head_bias = false;
  // Layers of the head's own in front of the vocabulary matrix: norm(f(dense(hidden))) (BERT).
  struct HeadTransform {
    Activation activation = Activation::gelu_erf;
    NormConfig norm;
  };
  std::optional<HeadTransform> head_transform;
  bool pooler = false;  // BERT's dense layer on the first token: kept, not used

  // What GGUF wants to be told beside what follows from the above.
  float alibi_max_bias = 0;  // the attention's slopes are alibi_slopes(heads, this)
  bool says_parallel =
      false;  // a family with both kinds of residual: the key stands there even when sequential
};

class Decoder : public Model {
 public:
  // `source` is the config.json it came from.
  Decoder(const DecoderConfig& config, std::vector<WeightRow> table, const Json& source);

  const ModelInfo& info() const override { return config_.info; }
  Tensor forward(const std::vector<int32_t>& tokens, const Pass& pass) const override;
  const Tensor& head() const override {
    return config_.info.tied_embeddings && !config_.headless ? embedding_ : head_;
  }
  Tensor head_bias() const override { return head_bias_; }
  Tensor head_input(const Tensor& hidden) const override;
  ops::CrossEntropyOptions logit_options() const override;
  SequenceState make_state(const CacheOptions& options) const override;
  uint64_t state_bytes(const CacheOptions& options, int64_t tokens, int64_t pass_tokens) const override;
  using Model::make_state;
  std::vector<WeightRow> weight_table() const override { return table_; }
  Json hf_config() const override;
  void visit(const std::string& prefix, const ParameterVisitor& visitor) override;
  void visit_linears(const std::string& prefix, const LinearVisitor& visitor) override;
  const DecoderConfig& config() const { return config_; }

  // forward() in pieces, for what goes through a model layer by layer: what enters layer 0 (T, C), what leaves a layer
  // that x (T, C) enters, and what forward() makes of the last layer's. Whole sequences only.
  Tensor embed(const std::vector<int32_t>& tokens, const Pass& pass) const;
  Tensor run_layer(size_t layer, const Tensor& x, const Pass& pass) const;
  Tensor finish(Tensor x, const Pass& pass) const;

 private:

  DecoderConfig config_;
  std::vector<WeightRow> table_;
  std::unique_ptr<Json> source_;
  std::vector<Rope> ropes_;
  Tensor embedding_;    // (V, E)
  Tensor positions_;    // (rows, C) or undefined
  Tensor token_types_;  // (types, C) or undefined
  std::optional<Norm> embedding_norm_;
  std::optional<Linear> project_in_, project_out_;  // E <-> C where they differ
  std::vector<std::unique_ptr<DecoderBlock>> blocks_;
  std::optional<Norm> norm_;
  std::optional<Linear> pooler_, head_dense_;
  std::optional<Norm> head_norm_;
  Tensor head_;       // (V, E); undefined where tied or absent
  Tensor head_bias_;  // (V) or undefined
};

}  // namespace qkv
