#include "qkv/models/tokenizer_source.h"

#include <algorithm>
#include <filesystem>

#include "qkv/core/error.h"
#include "qkv/core/mapped_file.h"
#include "qkv/formats/checkpoint_formats.h"
#include "qkv/text/gguf_vocabulary.h"
#include "qkv/text/tokenizer_files.h"

namespace qkv {
namespace {

namespace fs = std::filesystem;

// What a checkpoint holds beside its weights.
class CheckpointFiles : public TokenizerFileSource {
 public:
  explicit CheckpointFiles(const Checkpoint& checkpoint)
      : TokenizerFileSource(checkpoint.path()), checkpoint_(checkpoint), names_(checkpoint.file_names()) {
    std::sort(names_.begin(), names_.end());
  }
  bool has(const std::string& name) const override {
    return std::binary_search(names_.begin(), names_.end(), name);
  }
  std::string read(const std::string& name) const override {
    const auto contents = checkpoint_.file(name);
    require(contents.has_value(), "{}: expected a file of the tokenizer, found none", path_of(name));
    return *contents;
  }
  std::vector<std::string> names() const override { return names_; }

 private:
  const Checkpoint& checkpoint_;
  std::vector<std::string> names_;
};

// By content. Tokenizer files are no checkpoint.
bool is_checkpoint(const std::string& path) {
  const auto file = MappedFile::open(path);
  const auto formats = checkpoint_formats();
  return std::any_of(formats.begin(), formats.end(),
                     [&](const CheckpointFormat& format) { return format.recognizes(file->bytes()); });
}

}  // namespace

std::unique_ptr<Tokenizer> tokenizer_of(const Checkpoint& checkpoint) {
  if (has_gguf_vocabulary(checkpoint.metadata())) return tokenizer_from_gguf(checkpoint.metadata());
  const CheckpointFiles files(checkpoint);
  if (has_tokenizer(files)) return load_tokenizer(files);
  // A file of weights in a model's directory, or one that knows no files.
  const fs::path path(checkpoint.path());
  const fs::path directory = fs::is_directory(path) ? path : path.parent_path();
  const DirectoryFiles beside(directory.empty() ? "." : directory.string());
  return has_tokenizer(beside) ? load_tokenizer(beside) : nullptr;
}

std::unique_ptr<Tokenizer> load_any_tokenizer(const std::string& path) {
  if (!fs::is_regular_file(path) || !is_checkpoint(path)) return load_tokenizer(path);
  auto tokenizer = tokenizer_of(*open_checkpoint(path));
  require(tokenizer != nullptr, "{}: expected a model with a tokenizer, found none in it or beside it", path);
  return tokenizer;
}

}  // namespace qkv
