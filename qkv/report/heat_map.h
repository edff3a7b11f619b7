// The colours of heat maps: classes q0 ... q23 (low to high) and d0 ... d24 (below zero, zero, above),
// defined for both colour schemes.
#pragma once

#include <string>

namespace qkv {

constexpr int kSequentialLevels = 24;
constexpr int kDivergingLevels = 25;

// The style rules of all levels.
std::string heat_style(bool dark);

}  // namespace qkv
