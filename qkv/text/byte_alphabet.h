// How vocabularies spell bytes. GPT-2's alphabet has 256 printable characters, one per byte (Radford et al.
// 2019): byte-level vocabularies in tokenizer.json and vocab.json use it ("Ġthe" for " the").
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace qkv {

// The character of each byte, as UTF-8.
const std::array<std::string, 256>& byte_characters();
// The bytes in the order of their characters: '!' first. Byte tokens of trained vocabularies have ids in this
// order.
const std::array<uint8_t, 256>& byte_order();
std::string spell_bytes(std::string_view bytes);
// nullopt if a character is outside the alphabet.
std::optional<std::string> unspell_bytes(std::string_view spelling);

// The other spelling of bytes, SentencePiece's: "<0x0A>".
std::string byte_token(uint8_t byte);
std::optional<uint8_t> byte_of_token(std::string_view token);

}  // namespace qkv
