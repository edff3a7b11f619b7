// Any bytes as a GGUF header: accepted, or refused with Error; what is accepted lies within the file, and
// what the writer makes of it reads back as it was.
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>

#include "qkv/core/error.h"
#include "qkv/formats/gguf_header.h"

namespace {

void check_accepted(std::span<const std::byte> file, const qkv::GgufHeader& header) {
  uint64_t sum = 0, bytes = 0;
  for (size_t i = 0; i < header.entries.size(); ++i) {
    for (const std::byte byte : file.subspan(header.offsets[i], header.entries[i].bytes)) {
      sum += static_cast<uint64_t>(byte);
    }
    bytes += header.entries[i].bytes + header.alignment;
  }
  volatile uint64_t used = sum;
  (void)used;
  if (header.alignment > 4096) return;  // what is written would be large
  std::string again;
  try {
    again = qkv::make_gguf_header(header.entries, header.metadata, "again");
  } catch (const qkv::Error&) {
    return;  // a name that is too long for llama.cpp
  }
  again.append(bytes, '\0');
  const auto second = qkv::parse_gguf_header(std::as_bytes(std::span(again)), "again");
  if (second.entries.size() != header.entries.size()) std::abort();
  for (size_t i = 0; i < second.entries.size(); ++i) {
    if (second.entries[i].name != header.entries[i].name ||
        second.entries[i].type != header.entries[i].type ||
        !(second.entries[i].shape == header.entries[i].shape)) {
      std::abort();
    }
  }
  // Not a number differs from itself: the headers are compared as bytes.
  if (qkv::make_gguf_header(second.entries, second.metadata, "third") !=
      qkv::make_gguf_header(header.entries, header.metadata, "again")) {
    std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const std::byte> file(reinterpret_cast<const std::byte*>(data), size);
  try {
    check_accepted(file, qkv::parse_gguf_header(file, "input"));
  } catch (const qkv::Error&) {
  }
  return 0;
}
