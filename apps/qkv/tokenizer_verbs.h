// Commands of `qkv tokenizer` that have a file of their own.
#pragma once

namespace CLI {
class App;
}

namespace qkv {

void add_tokenizer_verify(CLI::App& tokenizer);  // tokenizer_verify.cpp

}  // namespace qkv
