// What a file is, by its first bytes: for opening by content and for errors that say what was found instead.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace qkv {

// "a GGUF file", "a PyTorch or other ZIP archive", ...; empty if the bytes are no kind that is known by a
// signature.
std::string_view content_by_signature(std::span<const std::byte> bytes);

// True if the first bytes can be those of a safetensors file: a header length that fits and a header that
// opens an object.
bool looks_like_safetensors(std::span<const std::byte> bytes);

// A name that cannot lead out of its directory. (The file may be a link: the Hub's own cache is made of links.)
bool is_plain_file_name(std::string_view name);

// The text cut to a length and without control characters, to stand in an error sentence.
std::string shown(std::string_view text);

}  // namespace qkv
