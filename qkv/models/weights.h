// Between a checkpoint's tensors and a model's parameters, through the architecture's weight table.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "qkv/formats/checkpoint.h"
#include "qkv/models/model.h"

namespace qkv {

enum class Residence {
  trainable,  // every parameter an f32 copy of its own
  inference,  // matrices stay in the stored type, borrowed from the mapped file where they lie there as they
              // are; what is no matrix becomes f32
  memory,     // the same, but matrices are copied where decoding reads them fastest (weight_memory.h), if there
              // is room
};

// Fills every parameter from a checkpoint with Hugging Face or GGUF names. A missing, extra or misshapen
// tensor is an Error naming it and both shapes. Stored copies of tied heads, rotary frequencies and what the
// architecture ignores may be there.
void load_weights(Model& model, const Checkpoint& checkpoint, Residence residence);

// As load_weights, but into the f32 tensors that the parameters are already: whoever holds them (an
// optimizer) keeps them.
void restore_weights(Model& model, const Checkpoint& checkpoint);

// Normal(0, std) for matrices and embeddings, ones for norm weights, zeros for biases; projections back into
// the residual stream are scaled by 1 / sqrt(2 layers) (GPT-2, Radford et al. 2019). Each parameter's values
// depend only on (seed, name). Parameters of state-space mixers begin as their papers say.
void initialize_weights(Model& model, uint64_t seed, float standard_deviation);
// One parameter of a model of so many layers; a placeholder gets memory.
void initialize_parameter(const std::string& name, Tensor& parameter, int64_t layers, uint64_t seed, float standard_deviation);

// Writes named tensors into `directory` as safetensors of `type`.
void save_tensors(const std::string& directory, const std::vector<std::pair<std::string, Tensor>>& tensors,
                  DType type, uint64_t max_shard_bytes = 5'000'000'000);

// Writes the weights into `directory` as safetensors of `type`, named and laid out as Hugging Face has them.
void save_weights(Model& model, const std::string& directory, DType type, uint64_t max_shard_bytes);

}  // namespace qkv
