// What the program knows about an architecture beside its forward pass: what formats call it, how its
// configuration is read and written. One file per family defines its Architecture rows; registry.cpp lists
// them.
//
// The configuration's common form is Hugging Face's config.json: a GGUF file's metadata becomes one
// (from_gguf), a model is made from one (make), and writing GGUF turns one into metadata (to_gguf).
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "qkv/core/json.h"
#include "qkv/core/metadata.h"
#include "qkv/formats/checkpoint.h"
#include "qkv/models/model.h"

namespace qkv {

struct Architecture {
  std::string_view model_type;  // config.json's "model_type": "llama"
  std::string_view hf_class;    // config.json's "architectures": "LlamaForCausalLM"
  std::string_view gguf;        // general.architecture: "llama"; empty if GGUF has none
  // A model whose parameters are placeholders (Tensor::placeholder): shapes without memory, to be loaded or
  // initialized. Error naming the key if the configuration is impossible or asks for something that is not
  // implemented.
  std::unique_ptr<Model> (*make)(const JsonView& config);
  // Writes the keys of "<gguf>." that llama.cpp reads for this architecture. Null if GGUF has none.
  void (*to_gguf)(const JsonView& config, Metadata& metadata);
  // config.json from such keys; tensors are consulted for what the keys do not say (tied heads, biases, head
  // counts). Returns null when the file is of another row that shares the GGUF architecture name (Mixtral and
  // Llama are both "llama" in GGUF): the registry asks the next one.
  Json (*from_gguf)(const Metadata& metadata, const Checkpoint& checkpoint);
  // Endings of the names of tensors that checkpoints of this architecture may hold beside its weights and
  // that say nothing the configuration does not: causal masks (".attn.masked_bias"). Rotary frequencies and
  // the stored copy of a tied head need not be listed.
  std::span<const std::string_view> ignored = {};
  // Tensors that GGUF wants beside the weights (rope_freqs.weight). Null: none.
  std::vector<std::pair<std::string, Tensor>> (*gguf_tensors)(const JsonView& config) = nullptr;
};

}  // namespace qkv
