#include "qkv/compress/layer_walk.h"

#include <algorithm>
#include <map>
#include <memory>

#include "qkv/core/error.h"
#include "qkv/core/interrupt.h"
#include "qkv/nn/observed_weight.h"
#include "qkv/quant/uniform.h"
#include "qkv/tensor/autograd.h"

namespace qkv {
namespace {

// "attn.q" of "blocks.3.attn.q", and the same for every expert.
std::string role_of(const std::string& name) {
  std::string role = name.substr(name.find('.', name.find('.') + 1) + 1);
  constexpr std::string_view kExperts = "experts.";
  if (const size_t at = role.find(kExperts); at != std::string::npos) {
    const size_t number = at + kExperts.size();
    role.erase(number, role.find('.', number) - number);
  }
  return role;
}

}  // namespace

struct LayerWalk::Batch {
  Pass pass;
  Tensor x;  // (T, C): what enters the next layer
};

TokenSequences calibration_sequences(const ModelInfo& model, const Tokenizer& tokenizer,
                                     std::string_view text, const CalibrationOptions& options) {
  const int64_t length = std::min(options.context, model.max_positions);
  require(length >= 2 && options.sequences >= 1,
          "calibration: expected at least one sequence of at least 2 tokens, found {} of {}",
          options.sequences, length);
  EncodeOptions encode;
  encode.parse_special = false;
  const std::vector<int32_t> tokens = tokenizer.encode(text, encode);
  const auto found = static_cast<int64_t>(tokens.size());
  require(found >= length, "calibration: expected a text of at least {} tokens (one sequence), found {}",
          length, found);
  const auto largest = *std::max_element(tokens.begin(), tokens.end());
  require(largest < model.vocabulary, "calibration: expected ids below {} (the model's vocabulary), found {}",
          model.vocabulary, largest);
  const int64_t there = found / length, count = std::min(there, options.sequences);
  TokenSequences sequences;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t first = i * there / count * length;
    sequences.emplace_back(tokens.begin() + first, tokens.begin() + first + length);
    if (!tokenizer.prefix_ids().empty()) sequences.back()[0] = tokenizer.prefix_ids()[0];
  }
  return sequences;
}

Tensor matrix_of(const Linear& linear) {
  return linear.weight().dequantize();
}

void replace_matrix(Linear& linear, Tensor matrix) {
  linear.set_weight(std::make_unique<DenseWeight>(std::move(matrix)));
}

LayerWalk::LayerWalk(Decoder& model, const TokenSequences& sequences, const WalkOptions& options)
    : model_(model), options_(options) {
  require(!sequences.empty(), "calibration: expected at least one sequence, found none");
  const NoGrad off;
  for (size_t next = 0; next < sequences.size();) {
    std::vector<int32_t> tokens;
    std::vector<int64_t> lengths;
    do {
      tokens.insert(tokens.end(), sequences[next].begin(), sequences[next].end());
      lengths.push_back(static_cast<int64_t>(sequences[next].size()));
      ++next;
    } while (next < sequences.size() &&
             static_cast<int64_t>(tokens.size() + sequences[next].size()) <= options.batch_tokens);
    Batch batch{Pass::whole(lengths), {}};
    batch.x = model.embed(tokens, batch.pass);
    batches_.push_back(std::move(batch));
  }
}

LayerWalk::~LayerWalk() = default;

// The layer's linear layers by what they read, from one run on the first batch; those that it did not reach
// (experts) have inputs of their own.
std::vector<std::vector<SharedInput>> LayerWalk::find_inputs() {
  const std::string prefix = fmt::format("blocks.{}.", layer_);
  std::vector<std::pair<std::string, Linear*>> linears;
  model_.visit_linears("", [&](const std::string& name, Linear& linear) {
    if (name.starts_with(prefix)) linears.emplace_back(name, &linear);
  });
  constexpr size_t kNone = SIZE_MAX;
  std::vector<size_t> input_of(linears.size(), kNone);
  std::vector<Tensor> seen;  // kept alive, so that no two have the same place
  {
    std::vector<std::unique_ptr<InputObservation>> observations;
    for (size_t i = 0; i < linears.size(); ++i) {
      observations.push_back(std::make_unique<InputObservation>(*linears[i].second, [&, i](const Tensor& x) {
        if (input_of[i] != kNone) return;
        const auto same = std::find_if(seen.begin(), seen.end(), [&](const Tensor& other) {
          return other.raw() == x.raw() && other.shape() == x.shape() && other.dtype() == x.dtype();
        });
        input_of[i] = static_cast<size_t>(same - seen.begin());
        if (same == seen.end()) seen.push_back(x);
      }));
    }
    (void)model_.run_layer(layer_, batches_[0].x, batches_[0].pass);
  }
  std::vector<SharedInput> inputs;
  for (const Tensor& x : seen) inputs.push_back({{}, {}, InputStatistics(x.cols(), false)});
  for (size_t i = 0; i < linears.size(); ++i) {
    const auto& [name, linear] = linears[i];
    if (input_of[i] == kNone) {
      inputs.push_back({{name}, {linear}, InputStatistics(linear->weight().shape()[1], false)});
    } else {
      inputs[input_of[i]].names.push_back(name);
      inputs[input_of[i]].linears.push_back(linear);
    }
  }

  std::vector<std::vector<SharedInput>> stages;
  if (!options_.sequential) {
    stages.push_back(std::move(inputs));
    return stages;
  }
  std::map<std::string, size_t> stage_of;
  for (auto& input : inputs) {
    const auto [at, is_new] = stage_of.emplace(role_of(input.names[0]), stages.size());
    if (is_new) stages.emplace_back();
    stages[at->second].push_back(std::move(input));
  }
  return stages;
}

// Before any of them spoils an activation, so that the error can name it.
void LayerWalk::require_finite_weights() {
  const std::string prefix = fmt::format("blocks.{}.", layer_);
  model_.visit_linears("", [&](const std::string& name, Linear& linear) {
    if (name.starts_with(prefix)) require_finite(matrix_of(linear), name + ".weight");
  });
}

void LayerWalk::collect(std::vector<SharedInput>& inputs) {
  std::vector<std::unique_ptr<InputObservation>> observations;
  for (auto& input : inputs) {
    input.statistics = InputStatistics(input.statistics.columns(), options_.with_products);
    observations.push_back(std::make_unique<InputObservation>(
        *input.linears[0], [statistics = &input.statistics](const Tensor& x) { statistics->add(x); }));
  }
  for (const auto& batch : batches_) {
    stop_if_interrupted();
    (void)model_.run_layer(layer_, batch.x, batch.pass);
  }
  observations.clear();
  for (const auto& input : inputs) input.statistics.require_finite(input.names[0]);
}

void LayerWalk::run_all() {
  for (auto& batch : batches_) {
    stop_if_interrupted();
    Tensor after = model_.run_layer(layer_, batch.x, batch.pass);
    if (seen_) seen_(batch.x, after);
    batch.x = std::move(after);
  }
}

void LayerWalk::step(const Change& change) {
  require(!is_done(), "calibration: expected a layer to go on with, found the end of the model");
  const NoGrad off;
  require_finite_weights();
  for (auto& stage : find_inputs()) {
    stop_if_interrupted();
    collect(stage);
    change(stage);
    stage.clear();
  }
  run_all();
  ++layer_;
}

}  // namespace qkv
