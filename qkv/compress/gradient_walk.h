// Going through a model backwards with calibration text: what every linear layer read, and how the model's
// predictions depend on what it gave.
//
// The targets are drawn from the model's own predictions, so the gradients g at an output y are samples of
// the Fisher information: to second order a change dy of the outputs costs KL(before || after) = 1/2 E[(sum
// over tokens of g . dy)^2], summed over the predicted tokens (Amari 1998; Martens, arXiv 1412.1193, section
// 9).
//
// Held are the residual stream of all tokens before every layer, and what one layer needs for its gradients.
#pragma once

#include <string>
#include <vector>

#include "qkv/compress/layer_walk.h"
#include "qkv/models/decoder.h"

namespace qkv {

// Of one linear layer: its inputs (T, K) and the gradients at its outputs (T, N). Experts see some of the
// tokens.
struct LayerTrace {
  std::string name;  // "blocks.0.attn.q"
  Tensor inputs, gradients;
};

class GradientWalk {
 public:
  // The model outlives the walk and is not changed by it, but must be as it was whenever step() is called.
  GradientWalk(Decoder& model, const TokenSequences& sequences, uint64_t seed);

  int64_t tokens() const { return static_cast<int64_t>(tokens_.size()); }
  const std::vector<int64_t>& lengths() const { return lengths_; }
  size_t layers() const { return entering_.size() - 1; }
  // The layer that the next step() is of, from the last to the first, counted from 1; 0: none is left.
  size_t left() const { return left_; }
  std::vector<LayerTrace> step();
  // (T, C) at what enters the last layer that was stepped through; after the first layer's, at the embedded
  // tokens.
  const Tensor& gradients() const { return gradients_; }
  // What the gradients are of: minus the sum of the log-probabilities of these, one for every token.
  const std::vector<int32_t>& targets() const { return targets_; }
  const std::vector<int32_t>& inputs() const { return tokens_; }
  // What enters the first layer (T, C), with the model's embedding as it is now.
  Tensor embedded() const;
  const Tensor& entering(size_t layer) const { return entering_.at(layer); }

  // Mean KL divergence, in nats, of the model as it is now from what it was, over the tokens of so many
  // sequences, spread over all of them. Only layers from `layer` on have changed, or the embedding, and not
  // the head.
  double divergence(size_t layer, size_t sequences, bool embeds_anew = false) const;
  // (T, C): what the head read.
  const Tensor& hidden() const { return hidden_; }

 private:
  void draw_targets(uint64_t seed);

  Decoder& model_;
  std::vector<int32_t> tokens_;
  std::vector<int64_t> lengths_;
  Pass pass_;
  std::vector<Tensor> entering_;  // (T, C) of every layer, and what leaves the last
  Tensor hidden_;                 // (T, C)
  std::vector<int32_t> targets_;
  Tensor gradients_;
  size_t left_;
};

// Sum over the rows of KL(before || changed), in nats, of two sets of logits (rows, V).
double sum_of_divergences(const Tensor& changed, const Tensor& before);

}  // namespace qkv
