// The rows of every family of architectures, each defined in the family's own file. An architecture joins
// the program by a row in one of them, a new family by a line here and one in registry.cpp.
#pragma once

#include <span>

#include "qkv/models/architecture.h"

namespace qkv {

std::span<const Architecture> llama_architectures();         // llama.cpp
std::span<const Architecture> llama_expert_architectures();  // llama_experts.cpp
std::span<const Architecture> gemma_architectures();         // gemma.cpp
std::span<const Architecture> phi_architectures();           // phi.cpp
std::span<const Architecture> gpt2_architectures();          // gpt2.cpp
std::span<const Architecture> gpt_neox_architectures();      // gpt_neox.cpp
std::span<const Architecture> gptj_architectures();          // gptj.cpp
std::span<const Architecture> falcon_architectures();        // falcon.cpp
std::span<const Architecture> bloom_architectures();         // bloom.cpp
std::span<const Architecture> mpt_architectures();           // mpt.cpp
std::span<const Architecture> opt_architectures();           // opt.cpp
std::span<const Architecture> deepseek_architectures();      // deepseek.cpp
std::span<const Architecture> bert_architectures();          // bert.cpp
std::span<const Architecture> mamba_architectures();         // mamba.cpp

}  // namespace qkv
