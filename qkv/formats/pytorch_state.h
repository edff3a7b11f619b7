// What a pickled checkpoint holds: which of its values are the model's tensors and what they are called, and
// everything else as metadata.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "qkv/core/metadata.h"
#include "qkv/formats/pickle.h"

namespace qkv {

struct PytorchState {
  std::vector<std::pair<std::string, const PickleTensor*>> tensors;
  Metadata metadata;
};

// Walks the nested dictionaries and lists; names are the keys joined by dots, and list positions count from
// 0. A training checkpoint's model is found: where the outermost dictionary has no tensors of its own but a
// dictionary with tensors under "state_dict", "model_state_dict", "model" or "module", the tensors of that
// one are taken, under their own names; the others (an optimizer's) are left out and counted in the metadata
// key `pytorch.other_tensors`. The prefixes "module." (data parallel training) and "_orig_mod." (compiled
// modules), where all tensors have them, are cut off and kept in `pytorch.prefix`. Numbers, texts and lists
// of them become metadata under their names.
//
// Throws Error `<where>: ...` for a tensor whose key is neither a text nor an integer, and for a structure
// that is too deep or too large to be walked (it may contain itself).
PytorchState pytorch_state(const Pickle& pickle, std::string_view where);

}  // namespace qkv
