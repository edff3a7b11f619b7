// The rows of every family of architectures, each defined in the family's own file. An architecture joins
// the program by a row in one of them, a new family by a line here and one in registry.cpp.
#pragma once

#include <span>

#include "qkv/models/architecture.h"

namespace qkv {

std::span<const Architecture> llama_architectures();  // llama.cpp
std::span<const Architecture> mamba_architectures();  // mamba.cpp

}  // namespace qkv
