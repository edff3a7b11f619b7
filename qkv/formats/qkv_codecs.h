// The table of codecs that the chunks of a `.qkv` file may be encoded with: a codec is one row in
// qkv_codecs.cpp and a paragraph in docs/formats/qkv.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace qkv {

struct ChunkCodec {
  std::string_view name;
  // How many bytes one encoded byte can stand for: a chunk that claims more is damaged, which is known before
  // anything is allocated for it.
  uint64_t largest_expansion;
  // Fills `raw`, whose size is known from the directory. Throws Error (a sentence without a subject) if the
  // bytes are not an encoding of exactly so many.
  void (*decode)(std::span<const std::byte> encoded, std::span<const std::byte> parameters,
                 std::span<std::byte> raw);
};

// The bytes as they are.
constexpr std::string_view kRawCodec = "raw";

// Null if this program does not know the codec.
const ChunkCodec* find_chunk_codec(std::string_view name);

}  // namespace qkv
