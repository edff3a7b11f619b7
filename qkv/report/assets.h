// What every page embeds.
#pragma once

#include <string>
#include <string_view>

namespace qkv {

std::string page_style();
// Plain JavaScript without requests or dependencies; the page is complete without it.
std::string_view page_script();

}  // namespace qkv
