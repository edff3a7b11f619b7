// A model's parameters as the tensors of a Hugging Face checkpoint, for what changes a model and writes it
// again.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "qkv/formats/checkpoint.h"
#include "qkv/models/decoder.h"
#include "qkv/models/hf_metadata.h"
#include "qkv/models/stored_names.h"
#include "qkv/text/tokenizer.h"

namespace qkv {

// A model read from a checkpoint, with the tensors it would have in a Hugging Face directory.
class StoredModel {
 public:
  // The source outlives it. Error for what is no decoder.
  explicit StoredModel(const Checkpoint& source);

  Decoder& model() const { return *model_; }
  const Checkpoint& source() const { return source_; }
  const std::vector<WeightMapping>& mappings() const { return mappings_; }
  // Those that the model has: an optional tensor that the source lacks is left out.
  const std::vector<StoredGroup>& groups() const { return groups_; }
  // The name of a group's tensor, with the prefix that the source has.
  std::string name_of(const StoredGroup& group) const { return names_.actual(group.name); }
  // As the source has it, if that is f32, bf16 or f16; f16 for what is quantized and f32 for mixtures of
  // plain types.
  DType type_of(const StoredGroup& group) const;
  // The tensor of that type, of the parameters as they are now.
  Tensor make(const StoredGroup& group, DType type);
  // The parameter as it is now.
  Tensor parameter(const std::string& name);
  // Says that parameters were replaced.
  void mark_changed() { parameters_.clear(); }
  // config.json, tokenizer and whatever else lies beside the weights.
  HfFiles files() const;
  // The tokenizer. Error if there is none.
  std::unique_ptr<Tokenizer> tokenizer() const;

 private:
  const TensorEntry* entry_of(const WeightMapping& mapping) const;

  const Checkpoint& source_;
  std::unique_ptr<Model> owner_;
  Decoder* model_ = nullptr;
  std::vector<WeightMapping> mappings_;
  StoredNames source_names_, names_;
  std::vector<StoredGroup> groups_;
  std::unordered_map<std::string, Tensor> parameters_;
};

// 3 of "blocks.3.attn.q.weight", -1 of what is in no block.
int64_t layer_of(const std::string& parameter);

// Whether some tensor of the checkpoint is of a block type, which a Hugging Face directory cannot hold.
bool has_blocks(const Checkpoint& checkpoint);

}  // namespace qkv
