// The tokenizer that belongs to a model, wherever the model keeps it: embedded in a GGUF file, as files inside a
// `.qkv` file, or beside the weights.
#pragma once

#include <memory>
#include <string>

#include "qkv/formats/checkpoint.h"
#include "qkv/text/tokenizer.h"

namespace qkv {

// Null if the checkpoint brings none along. Throws Error for a broken one.
std::unique_ptr<Tokenizer> tokenizer_of(const Checkpoint& checkpoint);

// From a checkpoint of any format, a directory, or a tokenizer's file. Throws Error if there is none.
std::unique_ptr<Tokenizer> load_any_tokenizer(const std::string& path);

}  // namespace qkv
