// Replacing every occurrence of a string or of a pattern.
#pragma once

#include <string>
#include <string_view>

#include "qkv/text/regex.h"

namespace qkv {

// `wanted` is not empty.
std::string replace_all(std::string_view text, std::string_view wanted, std::string_view content);
std::string replace_matches(std::string_view text, const Regex& regex, std::string_view content,
                            Regex::Scratch& scratch);

}  // namespace qkv
