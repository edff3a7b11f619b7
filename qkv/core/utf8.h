// UTF-8 without tables: validity, code points, and where an incremental stream may be cut.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace qkv {

// The byte offset of the first byte that is not valid UTF-8 (overlong forms, surrogates and > U+10FFFF are not), if any.
std::optional<size_t> first_invalid_utf8(std::string_view text);

// Length of the longest prefix that does not end inside a code point which later bytes could still complete.
// Invalid bytes are complete (they will be replaced), so a stream never stalls on them.
size_t complete_utf8_prefix(std::string_view text);

// Every maximal invalid subsequence becomes U+FFFD.
std::string replace_invalid_utf8(std::string_view text);

// Decodes the code point at `position` and advances it; nullopt (advancing one byte) if it is invalid there.
std::optional<char32_t> next_code_point(std::string_view text, size_t& position);
void append_utf8(std::string& out, char32_t code_point);

}  // namespace qkv
