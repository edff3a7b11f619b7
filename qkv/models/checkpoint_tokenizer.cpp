#include "qkv/models/checkpoint_tokenizer.h"

#include <filesystem>

#include "qkv/core/error.h"

namespace qkv {
namespace {

namespace fs = std::filesystem;

std::unique_ptr<Tokenizer> load(const Checkpoint& checkpoint) {
  const std::string& path = checkpoint.path();
  if (fs::is_directory(path)) return load_tokenizer(path);
  const std::string directory = fs::path(path).parent_path().string();
  return load_tokenizer(directory.empty() ? "." : directory);
}

}  // namespace

std::unique_ptr<Tokenizer> checkpoint_tokenizer(const Checkpoint& checkpoint, std::string& problem) {
  try {
    return load(checkpoint);
  } catch (const Error& error) {
    problem = error.what();
    return nullptr;
  }
}

bool add_tokenizer_files(const Checkpoint& checkpoint, HfFiles& files, std::string& problem) {
  problem = checkpoint.path() + ": found no tokenizer";
  return files.contains("tokenizer.json");
}

bool write_vocabulary(const Tokenizer*, int64_t, Metadata& metadata) {
  metadata.set("tokenizer.ggml.model", std::string("no_vocab"));
  return false;
}

}  // namespace qkv
