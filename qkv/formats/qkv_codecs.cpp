#include "qkv/formats/qkv_codecs.h"

#include <cstring>

#include "qkv/core/error.h"

namespace qkv {
namespace {

void decode_raw(std::span<const std::byte> encoded, std::span<const std::byte>, std::span<std::byte> raw) {
  require(encoded.size() == raw.size(), "expected {} bytes, found {}", raw.size(), encoded.size());
  if (!raw.empty()) std::memcpy(raw.data(), encoded.data(), raw.size());
}

constexpr ChunkCodec kCodecs[] = {
    {kRawCodec, decode_raw},
};

}  // namespace

const ChunkCodec* find_chunk_codec(std::string_view name) {
  for (const auto& codec : kCodecs) {
    if (codec.name == name) return &codec;
  }
  return nullptr;
}

}  // namespace qkv
