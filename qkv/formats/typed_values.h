// The binary form of a metadata value, as GGUF defines it and `.qkv` shares it: a u32 type id, then the
// value. A string is a u64 length and its bytes, a list the element's type id, a u64 count and the elements.
#pragma once

#include <string>
#include <string_view>

#include "qkv/core/metadata.h"
#include "qkv/formats/byte_reader.h"

namespace qkv {

// The smallest pair: the length of a key of one byte, the key, the type id, a value of one byte.
constexpr uint64_t kSmallestKeyValueBytes = 8 + 1 + 4 + 1;

// Reads `count` pairs of a key (a sized text) and a value. Throws Error naming the key for an empty or
// repeated key, an unknown type id, a list of lists, a boolean other than 0 and 1 and for what runs past the
// end.
void read_key_values(ByteReader& reader, uint64_t count, Metadata& metadata);
// Appends all pairs. Throws Error `<where>: ...` for an empty key.
void append_key_values(std::string& out, const Metadata& metadata, std::string_view where);

}  // namespace qkv
