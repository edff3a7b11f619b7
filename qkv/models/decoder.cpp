#include "qkv/models/decoder.h"

#include <nlohmann/json.hpp>

#include "qkv/core/error.h"

namespace qkv {

Decoder::Decoder(const DecoderConfig& config, std::vector<WeightRow> table, const Json& source)
    : config_(config), table_(std::move(table)), source_(std::make_unique<Json>(source)) {
  const ModelInfo& info = config_.info;
  const int64_t width = config.embedding_width > 0 ? config.embedding_width : info.channels;
  require(config.layers.empty() || static_cast<int64_t>(config.layers.size()) == info.layers,
          "{}: expected {} layer descriptions, found {}", info.model_type, info.layers, config.layers.size());
  for (const RopeConfig& rope : config.ropes) ropes_.emplace_back(rope);
  embedding_ = Tensor::placeholder({info.vocabulary, width});
  if (config.learned_positions)
    positions_ = Tensor::placeholder({info.max_positions + config.position_offset, info.channels});
  if (config.embedding_norm) embedding_norm_.emplace(*config.embedding_norm, info.channels);
  if (width != info.channels) {
    project_in_.emplace(width, info.channels, false);
    project_out_.emplace(info.channels, width, false);
  }
  for (int64_t i = 0; i < info.layers; ++i) {
    BlockConfig block = config.block;
    if (!config.layers.empty()) block.attention.window = config.layers[static_cast<size_t>(i)].window;
    blocks_.push_back(std::make_unique<DecoderBlock>(block));
  }
  if (config.final_norm) norm_.emplace(*config.final_norm, info.channels);
  if (!info.tied_embeddings) head_ = Tensor::placeholder({info.vocabulary, width});
}

Tensor Decoder::embed(const std::vector<int32_t>& tokens, const Pass& pass) const {
  Tensor x =
      ops::embedding(tokens, embedding_, config_.f32_residual ? DType::f32 : pass.compute_type);  // (T, E)
  if (config_.embedding_scale != 1) x = ops::scale(x, config_.embedding_scale);
  if (project_in_) x = project_in_->forward(x);
  if (config_.learned_positions) {
    std::vector<int32_t> rows = pass.positions;
    for (int32_t& row : rows) {
      require(row < config_.info.max_positions, "{}: position {} is past the table of {}",
              config_.info.model_type, row, config_.info.max_positions);
      row += static_cast<int32_t>(config_.position_offset);
    }
    x = ops::add(x, ops::embedding(rows, positions_, pass.compute_type));
  }
  if (embedding_norm_) x = embedding_norm_->forward(x);
  return ops::dropout(x, pass.dropout, pass.dropout_seed, pass.dropout_stream);
}

Tensor Decoder::forward(const std::vector<int32_t>& tokens, const Pass& pass) const {
  require(static_cast<int64_t>(tokens.size()) == pass.tokens(),
          "{}: expected {} tokens for this pass, found {}", config_.info.model_type, pass.tokens(),
          tokens.size());
  std::vector<ops::RopeTable> tables;
  for (const Rope& rope : ropes_) tables.push_back(rope.table(pass.positions, pass.sequences));
  const auto table_of = [&](size_t layer) -> const ops::RopeTable* {
    const int index = config_.layers.empty() ? 0 : config_.layers[layer].rope;
    return tables.empty() || index < 0 ? nullptr : &tables.at(static_cast<size_t>(index));
  };

  Tensor x = embed(tokens, pass);  // (T, C)
  if (pass.checkpoint_activations && gradient_mode()) {
    const auto kept = std::make_shared<const Pass>(pass);  // backward runs after the caller's Pass is gone
    for (size_t i = 0; i < blocks_.size(); ++i) {
      const DecoderBlock* block = blocks_[i].get();
      const ops::RopeTable* table = table_of(i);
      const ops::RopeTable rope = table == nullptr ? ops::RopeTable() : *table;
      x = checkpoint(
          [=, turns = table != nullptr](const std::vector<Tensor>& in) {
            return block->forward(in[0], *kept, turns ? &rope : nullptr, i);
          },
          {x});
    }
  } else {
    for (size_t i = 0; i < blocks_.size(); ++i) x = blocks_[i]->forward(x, pass, table_of(i), i);
  }
  for (size_t s = 0; s < pass.states.size(); ++s) {
    pass.states[s]->length += pass.sequences.offsets[s + 1] - pass.sequences.offsets[s];
  }
  if (norm_) x = norm_->forward(x);
  x = ops::cast(x, pass.compute_type);
  return project_out_ ? project_out_->forward(x) : x;
}

ops::CrossEntropyOptions Decoder::logit_options() const {
  ops::CrossEntropyOptions options;
  options.logit_scale = config_.logit_scale;
  options.softcap = config_.logit_softcap;
  return options;
}

// Nothing that changes the computation is decided after reading the source.
Json Decoder::hf_config() const {
  Json json = *source_;
  json["architectures"] = {config_.info.architecture};
  json["model_type"] = config_.info.model_type;
  return json;
}

SequenceState Decoder::make_state() const {
  SequenceState state;
  for (const auto& block : blocks_) state.layers.push_back(block->make_state());
  return state;
}

void Decoder::visit(const std::string& prefix, const ParameterVisitor& visitor) {
  visitor(prefix + "embed.weight", embedding_);
  if (positions_.defined()) visitor(prefix + "position.weight", positions_);
  if (embedding_norm_) embedding_norm_->visit(prefix + "embed_norm.", visitor);
  if (project_in_) project_in_->visit(prefix + "project_in.", visitor);
  for (size_t i = 0; i < blocks_.size(); ++i)
    blocks_[i]->visit(prefix + "blocks." + std::to_string(i) + ".", visitor);
  if (norm_) norm_->visit(prefix + "norm.", visitor);
  if (project_out_) project_out_->visit(prefix + "project_out.", visitor);
  if (head_.defined()) visitor(prefix + "head.weight", head_);
}

}  // namespace qkv
