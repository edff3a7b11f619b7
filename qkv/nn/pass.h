// One call of a model: which tokens belong together, where they stand, and whether their sequences have a past.
#pragma once

#include <cstdint>
#include <vector>

#include "qkv/nn/state.h"
#include "qkv/tensor/ops.h"
#include "qkv/tensor/projections.h"

namespace qkv {

struct Pass {
  ops::PackedSequences sequences;    // tokens are packed (T, C), never padded
  std::vector<int32_t> positions;    // (T)
  std::vector<int32_t> token_types;  // (T), or empty: all 0; read by models that have types of tokens (BERT)
  std::vector<SequenceState*> states;  // one per sequence, or empty: whole sequences (training, evaluation)
  // The layer's angles for positions within caches of a window and attention sinks; set by the model.
  const ops::RopeTable* sink_rope = nullptr;
  DType compute_type = DType::f32;   // of activations: f32 or bf16
  // How products with weights of blocks see activations, where no gradient is recorded. Exact unless asked for.
  Activations activations = Activations::exact;
  bool ggml_gelu = false;            // GELU with ggml's 16-bit rounding (ops::ggml_gelu): to compare with llama.cpp

  // Training only.
  float dropout = 0;           // probability
  uint64_t dropout_seed = 0;   // the mask of layer l's site s is the stream dropout_stream + 16 l + s of this seed
  uint64_t dropout_stream = 0;
  // NEFTune (Jain et al., arXiv 2310.05914): embeddings get noise, uniform within noise / sqrt(tokens of the sequence * C).
  float embedding_noise = 0;
  // > 0: shifted sparse attention (LongLoRA: Chen et al., arXiv 2309.12307): half of the heads attend within groups of so many
  // tokens, the others within groups that lie half a group further on.
  int64_t attention_group = 0;
  std::vector<Tensor>* router_logits = nullptr;  // if set, every mixture of experts appends its logits (T, experts)
  bool checkpoint_activations = false;  // keep only each block's input, run blocks again in backward

  bool incremental() const { return !states.empty(); }
  int64_t tokens() const { return static_cast<int64_t>(positions.size()); }

  // Whole sequences of the given lengths, positions counting from 0 in each.
  static Pass whole(const std::vector<int64_t>& lengths);
  // One sequence's next n tokens, continuing its state.
  static Pass next(SequenceState& state, int64_t n);
};

}  // namespace qkv
