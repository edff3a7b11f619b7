// What has to be known about the rules of a grammar before it can be compiled.
#pragma once

#include <cstdint>
#include <vector>

#include "qkv/engine/grammar/grammar_builder.h"

namespace qkv {

struct RuleAnalysis {
  std::vector<bool> nullable;    // by expression: it matches the empty text
  std::vector<bool> productive;  // by expression: it matches some text
  std::vector<uint32_t> rank;    // by rule: after every rule that may begin with it
  std::vector<bool> copied;      // by rule: to where it is used, instead of being called
};

// Looks at what can be reached from the root. Throws Error for a rule that is used and not defined, one that
// may begin with itself, and a root that no text matches.
RuleAnalysis analyse_rules(const GrammarBuilder& builder, RuleId root);

}  // namespace qkv
