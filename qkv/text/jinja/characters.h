// Characters as Python's str methods see them: white space, case, categories. By utf8proc, with the few
// mappings that it lacks (one character to several).
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

namespace qkv::jinja {

bool is_space(char32_t c);      // str.isspace()
bool is_printable(char32_t c);  // str.isprintable()
bool is_letter(char32_t c);     // str.isalpha(): general category L*
bool is_decimal(char32_t c);    // str.isdecimal(): category Nd
bool is_digit(char32_t c);      // str.isdigit(): with superscripts and circled digits
bool is_numeric(char32_t c);    // str.isnumeric(): any numeric value
bool is_word(char32_t c);       // \w of Python's re
bool is_lower(char32_t c);      // Lowercase
bool is_upper(char32_t c);      // Uppercase
bool is_title(char32_t c);      // category Lt
bool is_cased(char32_t c);
bool is_identifier_start(char32_t c);
bool is_identifier_part(char32_t c);

// Full mappings: one character may become three.
void append_upper(std::string& out, char32_t c);
void append_title(std::string& out, char32_t c);
// What Python's lower() writes for the character at bytes [begin, end) of `text`; a sigma that ends a word
// has a form of its own.
void append_lower(std::string& out, std::string_view text, size_t begin, size_t end);
void append_folded(std::string& out, char32_t c);

// What is left of `text` without leading and trailing characters of `set` (white space if null).
std::pair<size_t, size_t> stripped_range(std::string_view text, const std::string_view* set, bool left,
                                         bool right);

}  // namespace qkv::jinja
