// Small arithmetic with worked steps.
#pragma once

#include <string_view>
#include <vector>

#include "qkv/data/tales/draw.h"

namespace qkv::tales {

const std::vector<QuestionKind>& arithmetic_kinds();
// A problem of the kind; empty: any kind, by how often training text has it. Keys go to the draw. The
// operands of sums and differences are keyed as a family: 3 + 5, 5 + 3, 8 - 3 and 8 - 5 share "sum|3|5", so
// that no held-out sum is trained on under another name. (Steps of longer sums do state single-digit facts.)
Question make_arithmetic(Draw& draw, std::string_view kind = "");

}  // namespace qkv::tales
