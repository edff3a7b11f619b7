// The files that a tokenizer is read from, in a directory or in memory.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "qkv/text/tokenizer.h"

namespace qkv {

class TokenizerFileSource {
 public:
  virtual ~TokenizerFileSource() = default;
  virtual bool has(const std::string& name) const = 0;
  // Throws Error if it cannot be read.
  virtual std::string read(const std::string& name) const = 0;
  // Sorted.
  virtual std::vector<std::string> names() const = 0;
  // How error sentences call the file, or the source as a whole.
  std::string path_of(std::string_view name) const { return where_ + "/" + std::string(name); }
  const std::string& where() const { return where_; }

 protected:
  explicit TokenizerFileSource(std::string where) : where_(std::move(where)) {}

 private:
  std::string where_;
};

class DirectoryFiles : public TokenizerFileSource {
 public:
  explicit DirectoryFiles(std::string directory) : TokenizerFileSource(std::move(directory)) {}
  bool has(const std::string& name) const override;
  std::string read(const std::string& name) const override;
  std::vector<std::string> names() const override;
};

// The files must outlive it.
class MemoryFiles : public TokenizerFileSource {
 public:
  MemoryFiles(const TokenizerFiles& files, std::string where)
      : TokenizerFileSource(std::move(where)), files_(files) {}
  bool has(const std::string& name) const override { return files_.contains(name); }
  std::string read(const std::string& name) const override;
  std::vector<std::string> names() const override;

 private:
  const TokenizerFiles& files_;
};

// True if there is a vocabulary of any kind.
bool has_tokenizer(const TokenizerFileSource& files);
// As load_tokenizer(directory).
std::unique_ptr<Tokenizer> load_tokenizer(const TokenizerFileSource& files);

}  // namespace qkv
