// A checkpoint whose tensors are made when they are read: the result of a compression on its way through the
// converter into any container.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "qkv/formats/checkpoint.h"
#include "qkv/models/hf_metadata.h"

namespace qkv {

struct ProducedTensor {
  TensorEntry entry;
  std::function<Tensor()> make;
  std::function<void()> release = {};  // called when it will not be read again; may be empty
};

ProducedTensor produced_tensor(std::string name, DType type, const Shape& shape, std::function<Tensor()> make,
                               std::function<void()> release = {});

class ProducedCheckpoint final : public Checkpoint {
 public:
  // `path` is the source's, which the result must not replace. `files` are those of a Hugging Face directory.
  ProducedCheckpoint(std::string path, std::vector<ProducedTensor> tensors, HfFiles files,
                     Metadata metadata = Metadata());
  std::string_view format_name() const override { return "huggingface"; }
  const Json* config() const override { return config_.get(); }
  const Json* generation_config() const override { return generation_config_.get(); }
  std::vector<std::string> file_names() const override;
  std::optional<std::string> file(std::string_view name) const override;

 private:
  Tensor read_entry(size_t index) const override { return tensors_[index].make(); }
  void release_entry(size_t index) const override;

  std::vector<ProducedTensor> tensors_;
  HfFiles files_;
  std::unique_ptr<Json> config_, generation_config_;
};

}  // namespace qkv
