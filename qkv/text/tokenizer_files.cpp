#include "qkv/text/tokenizer_files.h"

#include <algorithm>
#include <filesystem>

#include "qkv/core/atomic_file.h"
#include "qkv/core/error.h"

namespace qkv {

namespace fs = std::filesystem;

bool DirectoryFiles::has(const std::string& name) const {
  return fs::is_regular_file(path_of(name));
}

std::string DirectoryFiles::read(const std::string& name) const {
  return read_file(path_of(name));
}

std::vector<std::string> DirectoryFiles::names() const {
  std::vector<std::string> names;
  for (const auto& item : fs::directory_iterator(where())) {
    if (item.is_regular_file()) names.push_back(item.path().filename().string());
  }
  // Further chat templates have a folder of their own.
  const fs::path more = fs::path(where()) / "additional_chat_templates";
  if (fs::is_directory(more)) {
    for (const auto& item : fs::directory_iterator(more)) {
      if (item.is_regular_file()) names.push_back((more.filename() / item.path().filename()).string());
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::string MemoryFiles::read(const std::string& name) const {
  const auto found = files_.find(name);
  require(found != files_.end(), "{}: expected a file of the tokenizer, found none", path_of(name));
  return found->second;
}

std::vector<std::string> MemoryFiles::names() const {
  std::vector<std::string> names;
  for (const auto& [name, bytes] : files_) names.push_back(name);
  return names;
}

}  // namespace qkv
