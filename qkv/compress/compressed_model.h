// A quantizing plan carried out in memory: the tensors that would be in the file, and the model that reads
// them. For measuring what a plan costs before anything is written.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "qkv/compress/quantize.h"
#include "qkv/models/model.h"

namespace qkv {

class CompressedModel {
 public:
  // Memory: that of the file. Errors as quantized_tensor(). `progress` is called with the source's bytes
  // done.
  CompressedModel(const Checkpoint& source, const QuantizePlan& plan, const QuantizeOptions& options,
                  const std::function<void(uint64_t bytes)>& progress = {});
  const Model& model() const { return *model_; }
  // The plan's tensors, in its order; the model is gone afterwards.
  std::vector<Tensor> take_tensors();

 private:
  std::vector<Tensor> tensors_;
  std::unique_ptr<Checkpoint> checkpoint_;
  std::unique_ptr<Model> model_;
};

}  // namespace qkv
