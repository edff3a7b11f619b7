// Text on its way into a page: escaping, and numbers as people read them.
#pragma once

#include <string>
#include <string_view>

namespace qkv {

// `text` for element content and for attribute values in double or single quotes. Invalid UTF-8 and control
// characters other than tab and newline become U+FFFD, so nothing in `text` can end an element, an attribute
// or the document.
std::string escape_html(std::string_view text);

// A JSON string literal, quotes included.
std::string json_string(std::string_view text);

// `value` to about `significant` digits: "1,234,567", "3.142", "3e-4", "−0.5", "NaN", "∞". Whole numbers
// below 1e15 are written out in full.
std::string format_number(double value, int significant = 4);

// Large counts with a suffix: "950", "12.3k", "1.2M", "3.5B".
std::string format_count(double value);

// `value` in scientific notation without padding: "3e-4", "1.5e12".
std::string format_scientific(double value, int decimals);

}  // namespace qkv
