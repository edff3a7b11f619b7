// What a change has cost a model, on a text: for the verbs that write a smaller one.
#pragma once

#include <string>

#include "qkv/core/json.h"
#include "qkv/eval/divergence.h"

namespace qkv {

// The model at `path` against the one it was made of. Error as require_same_vocabulary() and
// measure_divergence().
Divergence compare_models(const std::string& path, const std::string& reference, const std::string& text_file,
                          int64_t context);
// One line: "KL divergence 0.0123 +- 0.0004, same top token 93.1 %, perplexity 12.34 (was 12.01)".
std::string comparison_sentence(const Divergence& result);
Json comparison_json(const Divergence& result);

}  // namespace qkv
