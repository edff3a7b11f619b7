// Any bytes as an encoded chunk: the first says which codec, the next two how long the chunk is. Decoding
// ends, within its buffers, or is refused with Error; and what decodes encodes again to something that
// decodes to it.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <vector>

#include "qkv/codec/codec.h"
#include "qkv/core/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 3) return 0;
  const auto codec = static_cast<qkv::CodecId>(data[0] % qkv::kCodecCount);
  const size_t length = static_cast<size_t>(data[1]) | static_cast<size_t>(data[2]) << 8;
  // Of exactly their sizes, so that sanitizers see a step beyond them.
  const std::vector<uint8_t> encoded(data + 3, data + size);
  std::vector<std::byte> raw(length);
  try {
    qkv::decode_chunk(codec, std::as_bytes(std::span(encoded)), raw);
  } catch (const qkv::Error&) {
    return 0;
  }
  qkv::ChunkEncoder encoder;
  for (const auto elements : {qkv::Elements::bytes, qkv::Elements::words16, qkv::Elements::words32}) {
    const auto again = encoder.encode(raw, elements);
    std::vector<std::byte> back(length);
    qkv::decode_chunk(again.codec, again.data, back);
    if (back != raw) std::abort();
  }
  return 0;
}
