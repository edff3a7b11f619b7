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
  inference,  // matrices stay in the checkpoint's floating type, borrowed from the mapped file; vectors become f32
};

// Fills every parameter. A missing, extra or misshapen tensor is an Error naming it and both shapes. Tied heads and saved
// rotary frequencies may be present and are ignored.
void load_weights(Model& model, const Checkpoint& checkpoint, Residence residence);

// Normal(0, std) for matrices and embeddings, ones for norm weights, zeros for biases; projections back into the residual
// stream are scaled by 1 / sqrt(2 layers) (GPT-2, Radford et al. 2019). Each parameter's values depend only on (seed, name).
void initialize_weights(Model& model, uint64_t seed, float standard_deviation);

// Hugging Face name of a parameter; Error if the table lacks it.
std::string hf_name(const Model& model, const std::string& parameter);

// Writes named tensors into `directory` as safetensors of `type`.
void save_tensors(const std::string& directory, const std::vector<std::pair<std::string, Tensor>>& tensors, DType type,
                  uint64_t max_shard_bytes = 5'000'000'000);

// Writes the weights into `directory` as safetensors of `type`.
void save_weights(Model& model, const std::string& directory, DType type, uint64_t max_shard_bytes);

}  // namespace qkv
