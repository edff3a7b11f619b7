// Tokenized documents on disk, memory-mapped: what training reads.
//
// Layout, little-endian: "QKVTOKS1"; u32 bytes per token (2 or 4); u32 vocabulary size; u64 documents; u64 tokens; u64 xxh64 of
// the source files' contents and the tokenizer; then (documents + 1) u64 offsets; then the tokens. Every document is
// [begin-of-text] tokens [end-of-text], so that each can be learned from its first token.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "qkv/core/mapped_file.h"
#include "qkv/text/tokenizer.h"

namespace qkv {

class TokenFile {
 public:
  // Error naming the file and what is wrong with it.
  static std::shared_ptr<const TokenFile> open(const std::string& path);

  int64_t documents() const { return documents_; }
  int64_t tokens() const { return tokens_; }
  int64_t vocabulary() const { return vocabulary_; }
  uint64_t source_hash() const { return source_hash_; }
  // First token of document d; d = documents() gives tokens().
  int64_t offset(int64_t document) const { return static_cast<int64_t>(offsets_[document]); }
  // The document that holds token `position`.
  int64_t document_at(int64_t position) const;
  int32_t token(int64_t position) const {
    return width_ == 2 ? static_cast<int32_t>(reinterpret_cast<const uint16_t*>(data_)[position])
                       : static_cast<int32_t>(reinterpret_cast<const uint32_t*>(data_)[position]);
  }

 private:
  TokenFile() = default;
  std::shared_ptr<const MappedFile> file_;
  const uint64_t* offsets_ = nullptr;
  const std::byte* data_ = nullptr;
  int width_ = 2;
  int64_t documents_ = 0, tokens_ = 0, vocabulary_ = 0;
  uint64_t source_hash_ = 0;
};

struct TokenizeOptions {
  std::string document_separator = "<|endoftext|>";  // on a line of its own; a file without it is one document
  double valid_fraction = 0.05;                      // of the text, from the end; used when no validation files are given
};

struct TokenizeResult {
  std::string train_path, valid_path;
  int64_t train_tokens = 0, valid_tokens = 0, train_documents = 0, valid_documents = 0;
  uint64_t text_bytes = 0;
  bool reused = false;  // the files were there and match the sources
};

// Tokenizes text files into directory/train.tokens and directory/valid.tokens. Reuses them when they were made from the same
// bytes by the same tokenizer. Errors: no text at all, text that is not UTF-8 (file and byte offset), nothing left to
// validate on.
TokenizeResult tokenize_files(const std::vector<std::string>& train_files, const std::vector<std::string>& valid_files,
                              const Tokenizer& tokenizer, const std::string& directory, const TokenizeOptions& options = {});

}  // namespace qkv
