// The script that a character belongs to (Unicode Standard Annex #24), from PCRE2's tables.
#pragma once

#include <string_view>
#include <vector>

namespace qkv {

// The scripts that the UnicodeScripts step of tokenizer.json tells apart.
const std::vector<std::string_view>& unicode_script_names();
// An index of unicode_script_names(), -1 for characters of no or another script.
int unicode_script(char32_t c);

}  // namespace qkv
