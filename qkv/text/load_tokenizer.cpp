// Finding out what a file, a directory or a set of files holds.
#include <filesystem>
#include <vector>

#include "qkv/core/error.h"
#include "qkv/text/llama2c_vocabulary.h"
#include "qkv/text/pipeline_tokenizer.h"
#include "qkv/text/sentencepiece_tokenizer.h"
#include "qkv/text/tokenizer.h"
#include "qkv/text/tokenizer_files.h"

namespace qkv {
namespace {

namespace fs = std::filesystem;

std::unique_ptr<Tokenizer> from_parts(TokenizerParts parts, const TokenizerConfig& config) {
  return std::make_unique<PipelineTokenizer>(std::move(parts), config);
}

// The merges that belong to a vocabulary file of GPT-2's kind.
std::string merges_beside(const TokenizerFileSource& files, const std::string& vocabulary) {
  for (const char* name : {"merges.txt", "vocab.bpe"}) {
    if (files.has(name)) return name;
  }
  fail("{}: expected merges.txt or vocab.bpe beside it, found neither", files.path_of(vocabulary));
}

std::unique_ptr<Tokenizer> load_vocabulary(const TokenizerFileSource& files, const std::string& name) {
  TokenizerConfig config = read_tokenizer_config(files);
  const std::string path = files.path_of(name);
  std::string text = files.read(name);
  require(!text.empty(), "{}: expected a vocabulary, found an empty file", path);
  const size_t first = text.find_first_not_of(" \t\r\n");
  const bool json = name.ends_with(".json") || (first != std::string::npos && text[first] == '{');
  if (json && (name == "vocab.json" || name == "encoder.json")) {
    const std::string merges = merges_beside(files, name);
    return from_parts(parse_gpt2_files(text, path, files.read(merges), files.path_of(merges), config),
                      config);
  }
  if (json) return from_parts(parse_tokenizer_json(text, path), config);
  if (looks_like_tiktoken(text)) {
    TokenizerParts parts = parse_tiktoken(text, path, config);
    return from_parts(std::move(parts), config);
  }
  if (name.ends_with(".txt")) {
    TokenizerParts parts = parse_wordpiece_vocabulary(text, path, config);
    return from_parts(std::move(parts), config);
  }
  if (looks_like_llama2c_vocabulary(text)) {
    text = serialize_sentencepiece_proto(parse_llama2c_vocabulary(text, path));
  }
  return std::make_unique<SentencePieceTokenizer>(std::move(text), path, config);
}

// The file that holds the vocabulary.
std::optional<std::string> vocabulary_in(const TokenizerFileSource& files) {
  for (const char* name : {"tokenizer.json", "tokenizer.model"}) {
    if (files.has(name)) return name;
  }
  if (files.has("vocab.json") && files.has("merges.txt")) return "vocab.json";
  if (files.has("encoder.json") && files.has("vocab.bpe")) return "encoder.json";
  // qwen.tiktoken, spiece.model, tokenizer.model.v3: the first by name.
  const auto names = files.names();
  for (const char* part : {".tiktoken", ".model"}) {
    for (const auto& name : names) {
      const size_t at = name.find(part);
      const size_t end = at + std::string_view(part).size();
      if (at != std::string::npos && (end == name.size() || name[end] == '.')) return name;
    }
  }
  for (const char* name : {"vocab.txt", "tokenizer.bin"}) {
    if (files.has(name)) return name;
  }
  return std::nullopt;
}

}  // namespace

bool has_tokenizer(const TokenizerFileSource& files) {
  return vocabulary_in(files).has_value();
}

std::unique_ptr<Tokenizer> load_tokenizer(const TokenizerFileSource& files) {
  const auto name = vocabulary_in(files);
  require(name.has_value(),
          "{}: expected tokenizer.json, tokenizer.model, vocab.json with merges.txt, encoder.json with "
          "vocab.bpe, *.tiktoken, *.model, vocab.txt or tokenizer.bin, found none of them",
          files.where());
  return load_vocabulary(files, *name);
}

std::unique_ptr<Tokenizer> load_tokenizer(const std::string& directory_or_file) {
  std::error_code code;
  const auto status = fs::status(directory_or_file, code);
  require(fs::exists(status), "{}: expected a tokenizer's file or directory, found nothing",
          directory_or_file);
  if (fs::is_directory(status)) return load_tokenizer(DirectoryFiles(directory_or_file));
  const fs::path path(directory_or_file);
  const std::string parent = path.parent_path().string();
  return load_vocabulary(DirectoryFiles(parent.empty() ? "." : parent), path.filename().string());
}

std::unique_ptr<Tokenizer> tokenizer_from_files(const TokenizerFiles& files, const std::string& where) {
  return load_tokenizer(MemoryFiles(files, where));
}

}  // namespace qkv
