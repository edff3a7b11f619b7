// Going through a model layer by layer with calibration text: every linear layer's inputs are seen, the layer
// may be changed by them, and the next layer sees what the changed ones give (as GPTQ does). Held at a time
// are the residual stream of all calibration tokens and the statistics of one layer, or of one kind of input
// of it.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "qkv/models/decoder.h"
#include "qkv/quant/input_statistics.h"
#include "qkv/text/tokenizer.h"

namespace qkv {

struct CalibrationOptions {
  int64_t context = 512;    // tokens per sequence, at most the model's positions
  int64_t sequences = 128;  // at most; spread evenly over the text
  int64_t batch_tokens = 4096;
};

using TokenSequences = std::vector<std::vector<int32_t>>;

// Error if the text has not even tokens for one sequence, or has other ids than the model.
TokenSequences calibration_sequences(const ModelInfo& model, const Tokenizer& tokenizer,
                                     std::string_view text, const CalibrationOptions& options);

// Linear layers that multiply the same input, with its statistics.
struct SharedInput {
  std::vector<std::string> names;  // "blocks.0.attn.q"
  std::vector<Linear*> linears;
  InputStatistics statistics;
};

struct WalkOptions {
  bool with_products = true;  // of the statistics
  // A layer's inputs one after the other, each seen after the linear layers before it were changed: more
  // exact, and each takes one run of the layer.
  bool sequential = false;
  int64_t batch_tokens = 4096;
};

class LayerWalk {
 public:
  // The model outlives the walk.
  LayerWalk(Decoder& model, const TokenSequences& sequences, const WalkOptions& options);
  ~LayerWalk();
  LayerWalk(const LayerWalk&) = delete;
  LayerWalk& operator=(const LayerWalk&) = delete;

  size_t layer() const { return layer_; }  // the next step's
  bool is_done() const { return layer_ >= static_cast<size_t>(model_.info().layers); }
  // Called once with all of the layer's inputs, or one kind after the other. What it does to weights counts
  // from then on.
  using Change = std::function<void(std::vector<SharedInput>& inputs)>;
  void step(const Change& change);
  // Pairs of what enters and leaves the layer, for all tokens: called by step(), before the next.
  using Seen = std::function<void(const Tensor& before, const Tensor& after)>;
  void observe_layers(Seen seen) { seen_ = std::move(seen); }

 private:
  struct Batch;
  std::vector<std::vector<SharedInput>> find_inputs();
  void require_finite_weights();
  void collect(std::vector<SharedInput>& inputs);
  void run_all();

  Decoder& model_;
  WalkOptions options_;
  std::vector<Batch> batches_;
  Seen seen_;
  size_t layer_ = 0;
};

// A linear layer's matrix as f32.
Tensor matrix_of(const Linear& linear);
// Puts a matrix (of the same shape) into it.
void replace_matrix(Linear& linear, Tensor matrix);

}  // namespace qkv
