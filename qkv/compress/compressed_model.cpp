#include "qkv/compress/compressed_model.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "qkv/compress/produced_checkpoint.h"
#include "qkv/core/interrupt.h"
#include "qkv/models/registry.h"
#include "qkv/models/weights.h"

namespace qkv {

CompressedModel::CompressedModel(const Checkpoint& source, const QuantizePlan& plan,
                                 const QuantizeOptions& options,
                                 const std::function<void(uint64_t bytes)>& progress) {
  std::vector<ProducedTensor> produced;
  uint64_t done = 0;
  for (size_t i = 0; i < plan.tensors.size(); ++i) {
    stop_if_interrupted();
    tensors_.push_back(quantized_tensor(source, plan, i, options));
    const QuantizedTensor& tensor = plan.tensors[i];
    produced.push_back(
        produced_tensor(tensor.name, tensor.to, tensor.shape, [values = tensors_.back()] { return values; }));
    done += tensor.bytes_from;
    if (progress) progress(done);
  }
  Metadata metadata = plan.conversion.metadata;
  keep_hf_files(plan.conversion.files, metadata);
  checkpoint_ = std::make_unique<ProducedCheckpoint>(source.path(), std::move(produced), HfFiles{},
                                                     std::move(metadata));
  const ModelConfig config = model_config(*checkpoint_);
  model_ = make_model(*config.config, config.where);
  load_weights(*model_, *checkpoint_, Residence::inference);
}

std::vector<Tensor> CompressedModel::take_tensors() {
  model_.reset();
  checkpoint_.reset();
  return std::exchange(tensors_, {});
}

}  // namespace qkv
