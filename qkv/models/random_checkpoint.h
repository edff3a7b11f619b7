// A model that nobody trained, as a checkpoint: random weights of a configuration, made tensor by tensor
// while they are read. For measuring (speed and memory do not depend on values), for tests, and as the start
// of a training run, of models that need not fit memory.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "qkv/formats/checkpoint.h"
#include "qkv/models/model.h"
#include "qkv/models/stored_names.h"

namespace qkv {

class RandomCheckpoint final : public Checkpoint {
 public:
  // `config` as config.json; the tensors are named and laid out as Hugging Face has them, all of `type`.
  // Values are those of initialize_weights() for the same seed and deviation. Error as make_model().
  RandomCheckpoint(const Json& config, DType type, uint64_t seed, float standard_deviation,
                   std::string where);
  ~RandomCheckpoint() override;

  std::string_view format_name() const override { return "random"; }
  const Json* config() const override { return config_.get(); }

 private:
  Tensor read_entry(size_t index) const override;

  std::unique_ptr<const Json> config_;
  DType type_;
  uint64_t seed_;
  float standard_deviation_;
  std::unique_ptr<Model> model_;  // placeholders
  std::vector<WeightMapping> mappings_;
  std::vector<StoredGroup> groups_;
};

}  // namespace qkv
