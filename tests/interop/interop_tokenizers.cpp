// What the tokenizer scripts of tests/interop need beyond the qkv program.
//   interop_tokenizers write TOKENIZER OUT.gguf    a GGUF file that holds nothing but the vocabulary
#include <cstdio>
#include <string>

#include "qkv/core/error.h"
#include "qkv/formats/gguf.h"
#include "qkv/models/tokenizer_source.h"
#include "qkv/text/gguf_vocabulary.h"

int main(int argc, char** argv) {
  try {
    qkv::require(argc == 4 && std::string(argv[1]) == "write", "expected write TOKENIZER OUT.gguf");
    const auto tokenizer = qkv::load_any_tokenizer(argv[2]);
    qkv::Metadata metadata;
    metadata.set("general.architecture", std::string("llama"));
    // Padded like an embedding whose rows are a multiple of 64.
    const int64_t size = (tokenizer->vocab_size() + 63) / 64 * 64;
    qkv::write_gguf_vocabulary(*tokenizer, size, metadata);
    qkv::write_gguf(argv[3], {}, metadata, [](const qkv::TensorEntry&) { return qkv::Tensor(); });
    return 0;
  } catch (const qkv::Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 2;
  }
}
