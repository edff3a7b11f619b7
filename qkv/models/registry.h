// The architectures this program knows: found by a config.json's "model_type" and "architectures", or by the
// name that GGUF has for them.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "qkv/models/architecture.h"

namespace qkv {

// In the order in which they are tried.
std::vector<const Architecture*> architectures();
// model_type names, each once, for messages and help.
std::vector<std::string> known_model_types();

// The architecture of a config.json. Error `<where>: ...` naming the nearest known ones and what an unknown
// one lacks.
const Architecture& find_architecture(const Json& config, const std::string& where);
// Null if it is unknown, for what works on any checkpoint.
const Architecture* find_architecture_or_null(const Json& config);
// The architecture of a model that make_model() made; null for one that is not of the registry.
const Architecture* architecture_of(const Model& model);

// A model without memory (Tensor::placeholder) for a config.json. Errors as find_architecture, and what the
// architecture's own make() says.
std::unique_ptr<Model> make_model(const Json& config, const std::string& where);

// What a checkpoint says its model is.
struct ModelConfig {
  std::shared_ptr<const Json> config;  // as config.json
  std::string where;                   // what it was read from, for errors
};
// From the checkpoint's config.json, from the copy of one in its metadata (`qkv.hf.config`), or from GGUF's
// keys. Error if it has none of these, or GGUF's architecture is unknown.
ModelConfig model_config(const Checkpoint& checkpoint);
// True unless model_config() would say that the checkpoint has nothing to read a configuration from.
bool has_model_config(const Checkpoint& checkpoint);

}  // namespace qkv
