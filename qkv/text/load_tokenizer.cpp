// Finding out what a file or directory holds.
#include <algorithm>
#include <filesystem>
#include <vector>

#include "qkv/core/atomic_file.h"
#include "qkv/core/error.h"
#include "qkv/text/pipeline_tokenizer.h"
#include "qkv/text/sentencepiece_tokenizer.h"
#include "qkv/text/tokenizer.h"

namespace qkv {
namespace {

namespace fs = std::filesystem;

std::unique_ptr<Tokenizer> from_parts(TokenizerParts parts, const TokenizerConfig& config) {
  return std::make_unique<PipelineTokenizer>(std::move(parts), config);
}

// The merges that belong to a vocabulary file of GPT-2's kind, if they are there.
std::optional<std::string> merges_beside(const fs::path& vocabulary) {
  for (const char* name : {"merges.txt", "vocab.bpe"}) {
    const fs::path path = vocabulary.parent_path() / name;
    if (fs::is_regular_file(path)) return path.string();
  }
  return std::nullopt;
}

std::unique_ptr<Tokenizer> load_file(const std::string& path, TokenizerConfig config) {
  const fs::path name = fs::path(path).filename();
  std::string text = read_file(path);
  require(!text.empty(), "{}: expected a vocabulary, found an empty file", path);
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (name.extension() == ".json" || (first != std::string::npos && text[first] == '{')) {
    if (name == "vocab.json" || name == "encoder.json") {
      const auto merges = merges_beside(path);
      require(merges.has_value(), "{}: expected merges.txt or vocab.bpe beside it, found neither", path);
      return from_parts(read_gpt2_files(path, *merges, config), config);
    }
    return from_parts(parse_tokenizer_json(text, path), config);
  }
  if (looks_like_tiktoken(text)) {
    TokenizerParts parts = parse_tiktoken(text, path, config);
    return from_parts(std::move(parts), config);
  }
  if (name.extension() == ".txt") {
    TokenizerParts parts = parse_wordpiece_vocabulary(text, path, config);
    return from_parts(std::move(parts), config);
  }
  return std::make_unique<SentencePieceTokenizer>(std::move(text), path, config);
}

// The file of a directory that holds the vocabulary.
std::optional<std::string> vocabulary_in(const std::string& directory) {
  const auto present = [&](const std::string& name) {
    return fs::is_regular_file(fs::path(directory) / name);
  };
  const auto in_directory = [&](const std::string& name) { return (fs::path(directory) / name).string(); };
  for (const char* name : {"tokenizer.json", "tokenizer.model"}) {
    if (present(name)) return in_directory(name);
  }
  if (present("vocab.json") && present("merges.txt")) return in_directory("vocab.json");
  if (present("encoder.json") && present("vocab.bpe")) return in_directory("encoder.json");
  // qwen.tiktoken, spiece.model, tokenizer.model.v3: the first by name.
  std::vector<std::string> names;
  for (const auto& item : fs::directory_iterator(directory)) {
    if (item.is_regular_file()) names.push_back(item.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  for (const char* part : {".tiktoken", ".model"}) {
    for (const auto& name : names) {
      const size_t at = name.find(part);
      const size_t end = at + std::string_view(part).size();
      if (at != std::string::npos && (end == name.size() || name[end] == '.')) return in_directory(name);
    }
  }
  if (present("vocab.txt")) return in_directory("vocab.txt");
  return std::nullopt;
}

}  // namespace

std::unique_ptr<Tokenizer> load_tokenizer(const std::string& directory_or_file) {
  std::error_code code;
  const auto status = fs::status(directory_or_file, code);
  require(fs::exists(status), "{}: expected a tokenizer's file or directory, found nothing",
          directory_or_file);
  if (!fs::is_directory(status)) {
    const std::string parent = fs::path(directory_or_file).parent_path().string();
    return load_file(directory_or_file, read_tokenizer_config(parent.empty() ? "." : parent));
  }
  const auto path = vocabulary_in(directory_or_file);
  require(path.has_value(),
          "{}: expected tokenizer.json, tokenizer.model, vocab.json with merges.txt, encoder.json with "
          "vocab.bpe, "
          "*.tiktoken, *.model or vocab.txt, found none of them",
          directory_or_file);
  return load_file(*path, read_tokenizer_config(directory_or_file));
}

}  // namespace qkv
