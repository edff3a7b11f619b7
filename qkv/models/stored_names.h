// How a checkpoint names the tensors of a model's weight table: as Hugging Face or as GGUF does, and with or
// without the prefix of the base model ("model.", "transformer.", "bert."), which Hugging Face's AutoModel
// leaves away.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "qkv/formats/checkpoint.h"
#include "qkv/models/weight_map.h"

namespace qkv {

enum class Naming : uint8_t { hugging_face, gguf };

class StoredNames {
 public:
  // Error if the checkpoint has no tensor of the model under either naming.
  StoredNames(const Checkpoint& checkpoint, const std::vector<WeightMapping>& mappings);
  // For writing: the table's own names, or Hugging Face's with such prefixes removed and added.
  explicit StoredNames(Naming naming, std::string removed = "", std::string added = "")
      : naming_(naming), removed_(std::move(removed)), added_(std::move(added)) {}

  Naming naming() const { return naming_; }
  const StoredTensor& place(const WeightMapping& mapping) const {
    return naming_ == Naming::gguf ? mapping.gguf : mapping.hf;
  }
  // The table's name as this checkpoint has it.
  std::string actual(const std::string& name) const;
  const std::string& removed() const { return removed_; }
  const std::string& added() const { return added_; }

 private:
  Naming naming_ = Naming::hugging_face;
  std::string removed_, added_;
};

// The tensors of a checkpoint that are no parameter of the model and may be there all the same: stored copies
// of a tied head, rotary frequencies, what the architecture ignores. Error naming any other.
std::vector<std::string> tensors_beside_weights(const Model& model, const Checkpoint& checkpoint,
                                                const std::vector<WeightMapping>& mappings,
                                                const StoredNames& names);

// One stored tensor with the mappings of the parameters that lie in it.
struct StoredGroup {
  std::string name;  // as the table has it
  Shape shape;
  std::vector<const WeightMapping*> parts;
};
// In the order of the parameters; mappings without a tensor in this naming are left out. Points into
// `mappings`.
std::vector<StoredGroup> group_by_tensor(const std::vector<WeightMapping>& mappings,
                                         const StoredNames& names);

}  // namespace qkv
