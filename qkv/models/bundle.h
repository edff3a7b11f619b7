// A model with its tokenizer: what a path on the command line becomes.
#pragma once

#include <memory>
#include <string>

#include "qkv/models/adapter.h"
#include "qkv/models/model.h"
#include "qkv/models/weights.h"
#include "qkv/text/tokenizer.h"

namespace qkv {

struct Bundle {
  std::string path;
  std::unique_ptr<Model> model;
  std::shared_ptr<const Tokenizer> tokenizer;  // null if the path has none
  std::unique_ptr<Json> generation_config;     // null if the path has none
  std::vector<std::shared_ptr<Adapter>> adapters;  // in effect, the last one outermost
};

struct LoadOptions {
  Residence residence = Residence::inference;
  bool tokenizer_required = true;
  // A score in place of the vocabulary (ScoreModel), zero if the path is a language model. It is so anyway where the path, or
  // an adapter, is that of a reward model.
  bool score = false;
  std::vector<AdapterRequest> adapters = {};  // put over the weights, in this order
};

// Opens what is at `path`. Error if the model has no config, its tokenizer is missing though required, or the
// tokenizer has ids that the embedding does not.
Bundle load_bundle(const std::string& path, const LoadOptions& options = {});

struct SaveOptions {
  DType type = DType::f32;
  uint64_t max_shard_bytes = 5'000'000'000;
};
// Writes config.json, generation_config.json, weights and tokenizer into an existing directory.
void save_bundle(const std::string& directory, Model& model, const Tokenizer* tokenizer,
                 const SaveOptions& options = {});

}  // namespace qkv
