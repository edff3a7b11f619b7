// Unicode properties and normalization forms, by utf8proc.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace qkv {

// White_Space.
bool is_unicode_space(char32_t c);
// General category N*.
bool is_unicode_number(char32_t c);
// General category P*, or ASCII punctuation and symbols: what BERT splits on.
bool is_bert_punctuation(char32_t c);
// General categories Cc, Cf and Co without tab, newline and carriage return: what BERT drops. Unassigned code
// points stay.
bool is_bert_control(char32_t c);
// The blocks of ideographs that BERT puts spaces around.
bool is_bert_ideograph(char32_t c);
// General category Mn.
bool is_nonspacing_mark(char32_t c);
// General category M*.
bool is_mark(char32_t c);
// Alphabetic characters, marks, decimal digits, connector punctuation, joiners: \w as Unicode's UTS #18
// defines it.
bool is_word_character(char32_t c);
// Appends the lower case of one code point (more than one code point for U+0130).
void append_lower_case(std::string& out, char32_t c);

enum class NormalizationForm { nfc, nfd, nfkc, nfkd };
// `text` must be valid UTF-8.
std::string normalize_unicode(std::string_view text, NormalizationForm form);

// True only if normalizing valid UTF-8 to NFC changes nothing: a quick look at ranges, not the full property.
bool is_certainly_nfc(std::string_view text);

bool is_ascii(std::string_view text);
// Where the code point that ends before `position` begins; valid UTF-8, position > 0.
size_t previous_code_point(std::string_view text, size_t position);

// Where the cluster of characters (UAX #29) that begins at `begin` ends; valid UTF-8.
size_t cluster_end(std::string_view text, size_t begin);

// The maximal valid (or invalid) runs of any bytes: calls visit(run, valid) in order.
template <typename Visit>
void for_each_utf8_run(std::string_view text, Visit&& visit);

}  // namespace qkv

#include "qkv/core/utf8.h"

template <typename Visit>
void qkv::for_each_utf8_run(std::string_view text, Visit&& visit) {
  while (!text.empty()) {
    const auto invalid = first_invalid_utf8(text);
    const size_t valid_bytes = invalid.value_or(text.size());
    if (valid_bytes > 0) visit(text.substr(0, valid_bytes), true);
    text.remove_prefix(valid_bytes);
    size_t invalid_bytes = 0;
    while (invalid_bytes < text.size()) {
      size_t position = invalid_bytes;
      if (next_code_point(text, position)) break;
      invalid_bytes = position;
    }
    if (invalid_bytes > 0) visit(text.substr(0, invalid_bytes), false);
    text.remove_prefix(invalid_bytes);
  }
}
