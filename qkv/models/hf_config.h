// Reading config.json into a DecoderConfig: the checks and keys that families share. Every function fails
// with the file and the key if a value is missing or impossible.
#pragma once

#include <functional>

#include "qkv/models/decoder.h"

namespace qkv {

// The names under which a family keeps its sizes.
struct SizeKeys {
  const char* vocabulary = "vocab_size";
  const char* channels = "hidden_size";
  const char* layers = "num_hidden_layers";
  const char* heads = "num_attention_heads";
  const char* kv_heads = "num_key_value_heads";  // absent: as many as heads
  const char* head_dim = "head_dim";
  const char* hidden = "intermediate_size";  // absent: 4 x channels
  const char* positions = "max_position_embeddings";
  int64_t default_positions = 2048;
  int64_t default_head_dim = 0;  // 0: channels / heads
};

int64_t positive(const JsonView& config, const char* key, int64_t largest = int64_t{1} << 31);
int64_t positive_or(const JsonView& config, const char* key, int64_t fallback,
                    int64_t largest = int64_t{1} << 31);
// A number for which null means 0; `absent` where the key is missing: the default of the model's class.
double number_or_null(const JsonView& config, const char* key, double absent);
// An activation's Hugging Face name under `key`.
Activation activation_of(const JsonView& config, const char* key, const char* fallback);

// Sizes of the model, its attention and its feed-forward network. `model_type` and `hf_class` name it.
DecoderConfig read_sizes(const JsonView& config, const char* model_type, const char* hf_class,
                         const SizeKeys& keys = {});

// Rotary positions of `rotary_dim` dimensions (0: whole heads) from "rope_theta" and "rope_scaling".
RopeConfig read_rope(const JsonView& config, const DecoderConfig& decoder, double default_theta = 10000,
                     int64_t rotary_dim = 0);

// How many dimensions of a head turn: "partial_rotary_factor" of them.
int64_t rotary_dim_of(const JsonView& config, const DecoderConfig& decoder, double default_factor = 1);

// Windows of layers from "layer_types" ("sliding_attention", "full_attention"), or from `sliding(layer)`
// where the key is absent.
std::vector<LayerVariant> read_windows(const JsonView& config, int64_t layers, int64_t window,
                                       const std::function<bool(int64_t layer)>& sliding);

// Fails unless the key is absent or has this value: for variants that are not implemented.
void only(const JsonView& config, const char* key, bool value);

}  // namespace qkv
