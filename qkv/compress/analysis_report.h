// An analysis as a page: what the model is made of, heat maps by layer and role, what each type costs, and
// one row for every tensor.
#pragma once

#include <string>

#include "qkv/compress/analysis.h"
#include "qkv/report/page.h"

namespace qkv {

Page analysis_page(const std::string& title, const std::string& subtitle, const CheckpointAnalysis& analysis);

}  // namespace qkv
