// The tokenizer.bin of llama2.c: a SentencePiece BPE vocabulary without its settings.
#pragma once

#include <string>
#include <string_view>

#include "qkv/text/sentencepiece_proto.h"

namespace qkv {

// True if the bytes are such a file from end to end.
bool looks_like_llama2c_vocabulary(std::string_view bytes);
// The model that it was made of, as far as it says. Throws Error `<where>: ...`.
SentencePieceProto parse_llama2c_vocabulary(std::string_view bytes, const std::string& where);

}  // namespace qkv
