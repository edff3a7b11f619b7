// The architectures this program knows, by the "model_type" and "architectures" of a Hugging Face config.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "qkv/models/model.h"

namespace qkv {

// A model with zero weights for a Hugging Face config. Error naming the nearest known architecture otherwise.
std::unique_ptr<Model> make_model(const Json& config, const std::string& where);
// model_type names, for messages and help.
std::vector<std::string> known_model_types();

}  // namespace qkv
