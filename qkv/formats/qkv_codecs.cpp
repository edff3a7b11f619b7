#include "qkv/formats/qkv_codecs.h"

#include <array>

#include "qkv/codec/codec.h"
#include "qkv/core/error.h"

namespace qkv {
namespace {

template <CodecId kCodec>
void decode(std::span<const std::byte> encoded, std::span<const std::byte> parameters,
            std::span<std::byte> raw) {
  require(parameters.empty(), "expected a codec without parameters, found {} bytes of them",
          parameters.size());
  if (raw.empty() && encoded.empty()) return;
  try {
    decode_chunk(kCodec, encoded, raw);
  } catch (const Error& error) {
    const std::string_view sentence = error.what(), subject = "[codec] ";
    fail("{}", sentence.substr(sentence.starts_with(subject) ? subject.size() : 0));
  }
}

template <CodecId kCodec>
ChunkCodec row() {
  return {codec_name(kCodec), largest_expansion(kCodec), decode<kCodec>};
}

}  // namespace

const ChunkCodec* find_chunk_codec(std::string_view name) {
  static const std::array<ChunkCodec, kCodecCount> codecs = {row<CodecId::raw>(), row<CodecId::dictionary>(),
                                                             row<CodecId::split>(), row<CodecId::zstd>()};
  for (const auto& codec : codecs) {
    if (codec.name == name) return &codec;
  }
  return nullptr;
}

}  // namespace qkv
