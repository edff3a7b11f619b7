// Where tests find files.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <string>

namespace qkv::test {

// tests/golden/<name>: reference vectors that are part of the project.
inline std::string golden(const std::string& name) { return std::string(QKV_SOURCE_DIR) + "/tests/golden/" + name; }

// ../shared/<name> beside the checkout: optional data; tests that want it skip when it is absent.
inline std::string shared(const std::string& name) { return std::string(QKV_SOURCE_DIR) + "/../shared/" + name; }

// A directory that is removed with everything in it.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string pattern = (std::filesystem::temp_directory_path() / "qkv-test-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

// What Error says when `action` throws one; fails the test otherwise.
template <typename Action>
std::string error_of(Action&& action) {
  try {
    action();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "(no error)";
}

}  // namespace qkv::test
