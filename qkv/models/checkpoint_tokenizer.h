// The tokenizer that comes with a checkpoint, in whatever form its format has one.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "qkv/formats/checkpoint.h"
#include "qkv/models/hf_metadata.h"
#include "qkv/text/tokenizer.h"

namespace qkv {

// From the files of a Hugging Face directory (kept inside .qkv and GGUF files that were made of one), from
// the directory of a single file, or from GGUF's keys. Null, with the reason in `problem`, if there is none
// or it cannot be read.
std::unique_ptr<Tokenizer> checkpoint_tokenizer(const Checkpoint& checkpoint, std::string& problem);

// Error `<where>: ...` if the tokenizer has ids for which an embedding of so many rows has none.
void require_rows_for(const Tokenizer& tokenizer, int64_t rows, const std::string& where);

// config.json's or generation_config.json's ids that begin and end a text; the tokenizer is the authority.
void set_token_ids(Json& config, const Tokenizer& tokenizer);

// Completes the files of a Hugging Face directory with the checkpoint's tokenizer, unless they have one.
// False, with the reason, if there is none.
bool add_tokenizer_files(const Checkpoint& checkpoint, HfFiles& files, std::string& problem);

// GGUF's keys for the tokenizer; for null those of a model without a vocabulary, and false.
bool write_vocabulary(const Tokenizer* tokenizer, int64_t vocabulary_size, Metadata& metadata);

}  // namespace qkv
