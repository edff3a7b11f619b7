// Files that appear whole or not at all: written to a temporary neighbour, synced, renamed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace qkv {

class AtomicFile {
 public:
  // Creates `path` + ".tmp-<pid>-<n>". Throws Error naming the path and the system's reason.
  explicit AtomicFile(std::string path);
  // Removes the temporary file unless commit() succeeded.
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  // Appends. Throws Error (for example "No space left on device") naming the final path.
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text.data(), text.size()))); }
  // Bytes written so far.
  uint64_t size() const { return size_; }
  // Flushes, fsyncs, renames over the final path and fsyncs its directory.
  void commit();

 private:
  void flush();
  void write_through(std::span<const std::byte> bytes);
  std::string path_;
  std::string temporary_;
  int fd_ = -1;
  uint64_t size_ = 0;
  std::string buffer_;
  bool committed_ = false;
};

// The whole of `text` becomes the file, atomically.
void write_file(const std::string& path, std::string_view text);
// The whole file. Throws Error naming the path.
std::string read_file(const std::string& path);

// A directory that appears whole: files are written under path() and commit() renames it into place, moving
// an existing directory of that name aside first and removing it afterwards. Unless committed, the temporary
// is removed.
class AtomicDirectory {
 public:
  explicit AtomicDirectory(std::string final_path);
  ~AtomicDirectory();
  AtomicDirectory(const AtomicDirectory&) = delete;
  AtomicDirectory& operator=(const AtomicDirectory&) = delete;
  // Where to write.
  const std::string& path() const { return temporary_; }
  void commit();

 private:
  std::string final_path_;
  std::string temporary_;
  bool committed_ = false;
};

}  // namespace qkv
