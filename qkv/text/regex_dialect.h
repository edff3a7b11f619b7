// Oniguruma's regular expressions, which tokenizer.json files hold, in PCRE2's words.
#pragma once

#include <string>
#include <string_view>

namespace qkv {

// Differences that are bridged: what \s, \w, \b, \h and \p{Han} match, the names of properties, brackets
// inside brackets and their intersection ([\p{L}&&[^\p{Han}]]). What is broken stays so, for PCRE2 to name.
std::string pcre2_pattern(std::string_view oniguruma);

}  // namespace qkv
