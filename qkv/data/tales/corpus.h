// The documents of the corpus: which kind comes next, and the text of one of that kind.
#pragma once

#include "qkv/data/tales.h"

namespace qkv::tales {

// Throws Error unless `kind` is empty or among `known`; names the nearest.
void check_kind(std::string_view what, std::string_view kind, const std::vector<std::string>& known);
// The names of question_kinds().
const std::vector<std::string>& question_kind_names();

}  // namespace qkv::tales
