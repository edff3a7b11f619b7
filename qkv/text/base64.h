// Base64 (RFC 4648, standard alphabet, padded): how tiktoken writes tokens and tokenizer.json its character
// map.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace qkv {

// nullopt if the text is empty or not base64.
std::optional<std::string> decode_base64(std::string_view text);
std::string encode_base64(std::string_view bytes);

}  // namespace qkv
