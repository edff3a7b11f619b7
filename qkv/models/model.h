// A language model: one forward for training, prefill, decoding and batched serving.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "qkv/core/json.h"
#include "qkv/models/weight_map.h"
#include "qkv/nn/module.h"
#include "qkv/nn/pass.h"

namespace qkv {

// What every architecture can say about itself.
struct ModelInfo {
  std::string architecture;  // Hugging Face class, for example "LlamaForCausalLM"
  std::string model_type;    // "llama"
  int64_t vocabulary = 0, channels = 0, layers = 0, heads = 0, kv_heads = 0, head_dim = 0, hidden = 0;
  int64_t max_positions = 0;
  bool tied_embeddings = false;
  bool causal = true;  // false: an encoder (BERT): every token sees all of its sequence, there is no decoding
};

class Model : public Module {
 public:
  virtual const ModelInfo& info() const = 0;
  // tokens (T) -> final hidden states (T, C), normed: what the vocabulary head multiplies.
  virtual Tensor forward(const std::vector<int32_t>& tokens, const Pass& pass) const = 0;
  // The vocabulary matrix (V, C); the embedding itself where tied; undefined where there is no head (an encoder).
  virtual const Tensor& head() const = 0;
  // (V), added to the products with head(); undefined where there is none.
  virtual Tensor head_bias() const { return {}; }
  // Scale and softcap that turn products with head() into logits.
  virtual ops::CrossEntropyOptions logit_options() const { return {}; }
  // What head() multiplies, of hidden states: themselves, unless the head has layers of its own.
  virtual Tensor head_input(const Tensor& hidden) const { return hidden; }
  // (T, V) f32 logits of hidden states. Rounded activations only where no gradient is recorded.
  virtual Tensor logits(const Tensor& hidden, Activations activations = Activations::exact) const;
  // ops::linear_cross_entropy of hidden states through the whole head; scale and softcap of `options` are the model's.
  Tensor cross_entropy(const Tensor& hidden, const std::vector<int32_t>& targets, ops::CrossEntropyOptions options = {},
                       const std::vector<float>& weights = {}) const;
  // The memory of one sequence that is read token by token. Error for options that this model cannot have.
  virtual SequenceState make_state(const CacheOptions& options) const = 0;
  SequenceState make_state() const { return make_state({}); }
  // SequenceState::bytes() after `tokens` tokens in passes of at most `pass_tokens`: whole pages. Where layers
  // keep only a window, the most on the way there.
  virtual uint64_t state_bytes(const CacheOptions& options, int64_t tokens, int64_t pass_tokens = 1) const = 0;
  // Every parameter's names and places in Hugging Face checkpoints and in GGUF.
  virtual std::vector<WeightRow> weight_table() const = 0;
  // config.json that loads this model in Hugging Face transformers.
  virtual Json hf_config() const = 0;

  int64_t parameter_count();
  // Parameters without the input embedding (unless it is also the head): what costs arithmetic.
  int64_t matrix_parameter_count();
  // Forward and backward floating-point operations per token at `context` tokens of attention: 6 per matrix parameter, and
  // 12 x layers x heads x head_dim x context, halved for causality (PaLM, arXiv 2204.02311, appendix B).
  double training_flops_per_token(double context);
  void set_trainable(bool trainable);
};

// The row's names for layer `layer`.
std::string numbered(const std::string& pattern, int64_t layer);

}  // namespace qkv
