// What the program knows about an architecture beside its forward pass: what formats call it, how its
// configuration is read and written. One file per family defines its Architecture rows; registry.cpp lists
// them.
//
// The configuration's common form is Hugging Face's config.json: a GGUF file's metadata becomes one
// (from_gguf), a model is made from one (make), and writing GGUF turns one into metadata (to_gguf).
#pragma once

#include <memory>
#include <string_view>

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
};

}  // namespace qkv
