// A model that nobody trained, as a checkpoint: random weights of a configuration, made tensor by tensor
// while they are read. For measuring (speed and memory do not depend on values), for tests, and as the start
// of a training run, of models that need not fit memory.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "qkv/formats/checkpoint.h"
#include "qkv/models/hf_metadata.h"
#include "qkv/models/model.h"
#include "qkv/models/stored_names.h"

namespace qkv {

struct RandomWeights {
  DType type = DType::f32;
  uint64_t seed = 0;
  // Of matrices and embeddings; nothing: the configuration's initializer_range, or 0.02.
  std::optional<float> standard_deviation = {};
};

class RandomCheckpoint final : public Checkpoint {
 public:
  // `config` as config.json, `files` what shall be beside it (a tokenizer). The tensors are named and laid
  // out as Hugging Face has them, all of one type; their values are those of initialize_weights() for the
  // same seed and deviation. Error as make_model(), for a type that is not f32, bf16 or f16, and for a
  // deviation that is not positive.
  RandomCheckpoint(const Json& config, const RandomWeights& weights, HfFiles files, std::string path);
  ~RandomCheckpoint() override;

  std::string_view format_name() const override { return "random"; }
  const Json* config() const override { return config_.get(); }
  std::vector<std::string> file_names() const override;
  std::optional<std::string> file(std::string_view name) const override;

  const Model& model() const { return *model_; }

 private:
  Tensor read_entry(size_t index) const override;

  std::unique_ptr<const Json> config_;
  HfFiles files_;
  RandomWeights weights_;
  float standard_deviation_;
  std::unique_ptr<Model> model_;  // placeholders
  std::vector<WeightMapping> mappings_;
  std::vector<StoredGroup> groups_;
};

}  // namespace qkv
