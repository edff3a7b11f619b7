#include "qkv/models/decoder.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/core/rng.h"

namespace qkv {
namespace {

// The block under activation checkpointing: only its input is kept, and backward runs it once more. The
// logits of a router leave it beside its output, since what is collected during either run is off the tape.
Tensor run_twice(const DecoderBlock& block, const Tensor& x, const Pass& pass, const ops::RopeTable* rope,
                 size_t layer) {
  const auto kept = std::make_shared<Pass>(pass);  // backward runs after the caller's Pass is gone
  const auto table = rope == nullptr ? nullptr : std::make_shared<const ops::RopeTable>(*rope);
  const bool logits_wanted = pass.router_logits != nullptr && block.has_experts();
  kept->router_logits = nullptr;
  if (!logits_wanted) {
    return checkpoint(
        [=, &block](const std::vector<Tensor>& in) {
          return block.forward(in[0], *kept, table.get(), layer);
        },
        {x});
  }
  const Tensor both = checkpoint(
      [=, &block](const std::vector<Tensor>& in) {
        Pass own = *kept;
        std::vector<Tensor> logits;
        own.router_logits = &logits;
        const Tensor y = block.forward(in[0], own, table.get(), layer);
        return ops::concat_cols({ops::cast(y, DType::f32), logits.at(0)});
      },
      {x});
  pass.router_logits->push_back(ops::slice_cols(both, x.cols(), both.cols()));
  return ops::cast(ops::slice_cols(both, 0, x.cols()), x.dtype());
}

// NEFTune's noise, (T, columns): uniform within alpha / sqrt(tokens of the sequence * columns). Its stream lies
// between the layers' and the adapters'.
Tensor embedding_noise(const Pass& pass, int64_t columns) {
  constexpr uint64_t kStream = 1 << 18;
  Tensor noise = Tensor::empty({pass.tokens(), columns});
  const std::vector<int64_t>& offsets = pass.sequences.offsets;
  for (size_t s = 0; s + 1 < offsets.size(); ++s) {
    const auto values = static_cast<double>((offsets[s + 1] - offsets[s]) * columns);
    const float bound = pass.embedding_noise / static_cast<float>(std::sqrt(std::max(1.0, values)));
    Rng rng = Rng(pass.dropout_seed, pass.dropout_stream + kStream).split(s);
    for (int64_t i = offsets[s] * columns; i < offsets[s + 1] * columns; ++i)
      noise.data<float>()[i] = bound * (2 * rng.uniform() - 1);
  }
  return noise;
}

// Positions within the caches of a pass: where attention sinks are kept, no token is further from them than
// the cache is long. 0: nothing of the kind.
int64_t cached_positions(const Pass& pass) {
  for (const SequenceState* state : pass.states) {
    for (const auto& layer : state->layers) {
      const auto* cache = dynamic_cast<const KvState*>(layer.get());
      if (cache != nullptr && cache->options().sinks > 0) return cache->options().window + cache->options().sinks;
    }
  }
  return 0;
}

}  // namespace

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
  if (config.token_types > 0) token_types_ = Tensor::placeholder({config.token_types, info.channels});
  if (config.embedding_norm) embedding_norm_.emplace(*config.embedding_norm, info.channels);
  if (width != info.channels) {
    project_in_.emplace(width, info.channels, false);
    project_out_.emplace(info.channels, width, false);
  }
  for (int64_t i = 0; i < info.layers; ++i) {
    BlockConfig block = config.block;
    if (!config.layers.empty()) {
      const LayerVariant& layer = config.layers[static_cast<size_t>(i)];
      block.attention.window = layer.window;
      if (layer.dense) block.experts.reset();
    }
    blocks_.push_back(std::make_unique<DecoderBlock>(block));
  }
  if (config.final_norm) norm_.emplace(*config.final_norm, info.channels);
  if (config.pooler) pooler_.emplace(info.channels, info.channels, true);
  if (config.head_transform) {
    head_dense_.emplace(info.channels, info.channels, true);
    head_norm_.emplace(config.head_transform->norm, info.channels);
  }
  if (!info.tied_embeddings && !config.headless) head_ = Tensor::placeholder({info.vocabulary, width});
  if (config.head_bias) head_bias_ = Tensor::zeros({info.vocabulary});
}

Tensor Decoder::embed(const std::vector<int32_t>& tokens, const Pass& pass) const {
  Tensor x =
      ops::embedding(tokens, embedding_, config_.f32_residual ? DType::f32 : pass.compute_type);  // (T, E)
  if (config_.embedding_scale != 1) x = ops::scale(x, config_.embedding_scale);
  if (pass.embedding_noise > 0) x = ops::add(x, embedding_noise(pass, x.cols()).to(x.dtype()));
  if (project_in_) x = project_in_->forward(x, pass);
  if (config_.learned_positions) {
    std::vector<int32_t> rows = pass.positions;
    for (int32_t& row : rows) {
      require(row < config_.info.max_positions, "{}: position {} is past the table of {}",
              config_.info.model_type, row, config_.info.max_positions);
      row += static_cast<int32_t>(config_.position_offset);
    }
    x = ops::add(x, ops::embedding(rows, positions_, pass.compute_type));
  }
  if (token_types_.defined()) {
    const std::vector<int32_t> types =
        pass.token_types.empty() ? std::vector<int32_t>(tokens.size(), 0) : pass.token_types;
    require(types.size() == tokens.size(), "{}: expected {} token types, found {}", config_.info.model_type,
            tokens.size(), types.size());
    x = ops::add(x, ops::embedding(types, token_types_, pass.compute_type));
  }
  if (embedding_norm_) x = embedding_norm_->forward(x);
  return ops::dropout(x, pass.dropout, pass.dropout_seed, pass.dropout_stream);
}

Tensor Decoder::forward(const std::vector<int32_t>& tokens, const Pass& pass) const {
  require(static_cast<int64_t>(tokens.size()) == pass.tokens(),
          "{}: expected {} tokens for this pass, found {}", config_.info.model_type, pass.tokens(),
          tokens.size());
  for (size_t s = 0; s < pass.states.size(); ++s)
    pass.states[s]->reserve(pass.sequences.offsets[s + 1] - pass.sequences.offsets[s]);
  std::vector<ops::RopeTable> tables, sink_tables;
  for (const Rope& rope : ropes_) tables.push_back(rope.table(pass.positions, pass.sequences));
  const int64_t cached = cached_positions(pass);
  if (cached > 0) {
    std::vector<int32_t> within = pass.positions;
    for (int32_t& position : within) position = std::min(position, static_cast<int32_t>(cached - 1));
    for (const Rope& rope : ropes_) sink_tables.push_back(rope.table(within, pass.sequences));
  }
  const auto of_layer = [&](const std::vector<ops::RopeTable>& list, size_t layer) -> const ops::RopeTable* {
    const int index = config_.layers.empty() ? 0 : config_.layers[layer].rope;
    return list.empty() || index < 0 ? nullptr : &list.at(static_cast<size_t>(index));
  };
  const auto table_of = [&](size_t layer) { return of_layer(tables, layer); };

  Tensor x = embed(tokens, pass);  // (T, C)
  const bool again = pass.checkpoint_activations && gradient_mode();
  // Under frozen embeddings there may be adapters in the blocks: a checkpoint needs an input on the tape.
  if (again && !x.tracks_gradient()) x = x.detach().set_requires_grad(true);
  for (size_t i = 0; i < blocks_.size(); ++i) {
    if (again) {
      x = run_twice(*blocks_[i], x, pass, table_of(i), i);
    } else if (cached == 0) {
      x = blocks_[i]->forward(x, pass, table_of(i), i);
    } else {
      Pass with_sinks = pass;
      with_sinks.sink_rope = of_layer(sink_tables, i);
      x = blocks_[i]->forward(x, with_sinks, table_of(i), i);
    }
  }
  for (size_t s = 0; s < pass.states.size(); ++s) {
    pass.states[s]->length += pass.sequences.offsets[s + 1] - pass.sequences.offsets[s];
  }
  return finish(x, pass);
}

Tensor Decoder::finish(Tensor x, const Pass& pass) const {
  if (norm_) x = norm_->forward(x);
  x = ops::cast(x, pass.compute_type);
  return project_out_ ? project_out_->forward(x, pass) : x;
}

Tensor Decoder::run_layer(size_t layer, const Tensor& x, const Pass& pass) const {
  require(!pass.incremental(), "{}: expected whole sequences, found some with a past", config_.info.model_type);
  const int index = config_.layers.empty() ? 0 : config_.layers.at(layer).rope;
  if (ropes_.empty() || index < 0) return blocks_.at(layer)->forward(x, pass, nullptr, layer);
  const ops::RopeTable table = ropes_.at(static_cast<size_t>(index)).table(pass.positions, pass.sequences);
  return blocks_.at(layer)->forward(x, pass, &table, layer);
}

Tensor Decoder::head_input(const Tensor& hidden) const {
  if (!head_dense_) return hidden;
  return head_norm_->forward(
      ops::activation(head_dense_->forward(hidden), config_.head_transform->activation));
}

ops::CrossEntropyOptions Decoder::logit_options() const {
  ops::CrossEntropyOptions options;
  options.logit_scale = config_.logit_scale;
  options.softcap = config_.logit_softcap;
  return options;
}

// Nothing that changes the computation is decided after reading the source. Keys that only say how a GGUF
// file was laid out stay behind.
Json Decoder::hf_config() const {
  Json json = *source_;
  json["architectures"] = {config_.info.architecture};
  json["model_type"] = config_.info.model_type;
  for (auto it = json.begin(); it != json.end();)
    it = it.key().rfind("gguf_", 0) == 0 ? json.erase(it) : std::next(it);
  return json;
}

SequenceState Decoder::make_state(const CacheOptions& options) const {
  check(options);
  require(options.sinks == 0 || !config_.learned_positions,
          "{}: attention sinks need positions that turn heads, and this model has learned ones",
          config_.info.model_type);
  CacheOptions shared = options;
  if (shared.pool == nullptr) shared.pool = PagePool::make();
  SequenceState state;
  for (const auto& block : blocks_) state.layers.push_back(block->mixer().make_state(shared));
  return state;
}

uint64_t Decoder::state_bytes(const CacheOptions& options, int64_t tokens, int64_t pass_tokens) const {
  uint64_t total = 0;
  for (const auto& block : blocks_) total += block->mixer().state_bytes(options, tokens, pass_tokens);
  return total;
}

void Decoder::visit(const std::string& prefix, const ParameterVisitor& visitor) {
  visitor(prefix + "embed.weight", embedding_);
  if (positions_.defined()) visitor(prefix + "position.weight", positions_);
  if (token_types_.defined()) visitor(prefix + "token_type.weight", token_types_);
  if (embedding_norm_) embedding_norm_->visit(prefix + "embed_norm.", visitor);
  if (project_in_) project_in_->visit(prefix + "project_in.", visitor);
  for (size_t i = 0; i < blocks_.size(); ++i)
    blocks_[i]->visit(prefix + "blocks." + std::to_string(i) + ".", visitor);
  if (norm_) norm_->visit(prefix + "norm.", visitor);
  if (project_out_) project_out_->visit(prefix + "project_out.", visitor);
  if (pooler_) pooler_->visit(prefix + "pooler.", visitor);
  if (head_dense_) head_dense_->visit(prefix + "head_dense.", visitor);
  if (head_norm_) head_norm_->visit(prefix + "head_norm.", visitor);
  if (head_.defined()) visitor(prefix + "head.weight", head_);
  if (head_bias_.defined()) visitor(prefix + "head.bias", head_bias_);
}

void Decoder::visit_linears(const std::string& prefix, const LinearVisitor& visitor) {
  if (project_in_) project_in_->visit_linears(prefix + "project_in.", visitor);
  for (size_t i = 0; i < blocks_.size(); ++i)
    blocks_[i]->visit_linears(prefix + "blocks." + std::to_string(i) + ".", visitor);
  if (project_out_) project_out_->visit_linears(prefix + "project_out.", visitor);
  if (pooler_) pooler_->visit_linears(prefix + "pooler.", visitor);
  if (head_dense_) head_dense_->visit_linears(prefix + "head_dense.", visitor);
}

}  // namespace qkv
