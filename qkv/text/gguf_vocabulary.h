// Vocabularies embedded in GGUF files: the `tokenizer.ggml.*` keys.
#pragma once

#include <memory>

#include "qkv/core/metadata.h"
#include "qkv/text/tokenizer.h"

namespace qkv {

// True if the metadata hold a vocabulary.
bool has_gguf_vocabulary(const Metadata& metadata);

// The tokenizer that the keys describe: models "llama" (SentencePiece BPE), "t5" (SentencePiece Unigram),
// "gpt2" and "gemma4" (BPE, with every pre-tokenizer of gguf_pretokenizers.h) and "bert" (WordPiece). Where
// the keys leave something open, what llama.cpp assumes holds. Throws Error `<where>: ...` naming what is
// missing, wrong or not supported.
std::unique_ptr<Tokenizer> tokenizer_from_gguf(const Metadata& metadata);

// Replaces the tokenizer keys by those that make llama.cpp give this tokenizer's ids, for a model with
// `vocabulary_size` ids (ids that the tokenizer does not use become unused "[PAD<id>]" tokens). What GGUF
// cannot express (a normalizer, flags of added tokens, stop ids) is kept in `qkv.tokenizer.*`, which
// tokenizer_from_gguf reads, and a warning names what llama.cpp will do differently. Throws Error if the
// tokenizer has more ids than the model or is of a kind that GGUF has not.
void write_gguf_vocabulary(const Tokenizer& tokenizer, int64_t vocabulary_size, Metadata& metadata);

}  // namespace qkv
