// Any bytes as a GGUF file with a vocabulary: a tokenizer, or refused with Error; what is accepted encodes
// any bytes and can be written again.
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "qkv/core/error.h"
#include "qkv/formats/gguf_header.h"
#include "qkv/text/gguf_vocabulary.h"
#include "tests/fuzz/targets.h"

using qkv::fuzz::use;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const auto header = qkv::parse_gguf_header(std::as_bytes(std::span(data, size)), "fuzz");
    const auto tokenizer = qkv::tokenizer_from_gguf(header.metadata);
    use(*tokenizer, text);
    qkv::Metadata metadata("again");
    qkv::write_gguf_vocabulary(*tokenizer, tokenizer->vocab_size(), metadata);
    use(*qkv::tokenizer_from_gguf(metadata), text);
  } catch (const qkv::Error&) {
  }
  return 0;
}
