// Any bytes as a SentencePiece model or a tokenizer.bin of llama2.c: accepted by us and the library, or
// refused with Error; what is accepted encodes any bytes, and so do the forms that are made of it.
#include <cstdint>
#include <string>
#include <string_view>

#include "qkv/core/error.h"
#include "qkv/text/llama2c_vocabulary.h"
#include "qkv/text/sentencepiece_proto.h"
#include "qkv/text/sentencepiece_tokenizer.h"
#include "tests/fuzz/targets.h"

using qkv::fuzz::use;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  try {
    std::string model = bytes;
    if (qkv::looks_like_llama2c_vocabulary(model))
      model = qkv::serialize_sentencepiece_proto(qkv::parse_llama2c_vocabulary(model, "fuzz"));
    const qkv::SentencePieceTokenizer tokenizer(model, "fuzz", {});
    use(tokenizer, bytes);
    use(tokenizer, " a  text\n▁ with <s> things ");
    use(qkv::SentencePieceTokenizer(qkv::serialize_sentencepiece_proto(tokenizer.proto()), "again", {}),
        bytes);
    use(*qkv::tokenizer_from_files({{"tokenizer.json", tokenizer.to_json()}}, "json"), bytes);
  } catch (const qkv::Error&) {
  }
  return 0;
}
