// Any bytes as a tokenizer file, and any bytes as a text: a vocabulary is accepted or refused with Error, and
// what is accepted encodes and decodes without a crash or a hang.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "qkv/core/error.h"
#include "qkv/text/pipeline_tokenizer.h"
#include "qkv/text/sentencepiece_proto.h"
#include "tests/fuzz/targets.h"

namespace {

constexpr char kBytes[] =
    R"({"added_tokens":[{"id":4,"content":"<x>","special":true}],"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},
        "decoder":{"type":"ByteLevel"},"model":{"type":"BPE","unk_token":"?","vocab":{"?":0,"a":1,"b":2,"ab":3},"merges":["a b"]}})";

}  // namespace

using qkv::fuzz::use;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  static const qkv::PipelineTokenizer fixed(qkv::parse_tokenizer_json(kBytes, "fixed"), {});
  use(fixed, bytes);
  try {
    const qkv::PipelineTokenizer tokenizer(qkv::parse_tokenizer_json(bytes, "fuzz"), {});
    use(tokenizer, bytes);
    // What it writes it must read.
    const qkv::PipelineTokenizer again(qkv::parse_tokenizer_json(tokenizer.to_json(), "again"), {});
    if (again.encode("a text") != tokenizer.encode("a text")) std::abort();
  } catch (const qkv::Error&) {
  }
  try {
    qkv::TokenizerConfig config;
    const qkv::PipelineTokenizer tokenizer(qkv::parse_tiktoken(bytes, "fuzz", config), config);
    use(tokenizer, bytes);
  } catch (const qkv::Error&) {
  }
  try {
    qkv::parse_sentencepiece_proto(bytes, "fuzz");
  } catch (const qkv::Error&) {
  }
  return 0;
}
