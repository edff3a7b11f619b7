#include "qkv/core/atomic_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <filesystem>

#include "qkv/core/error.h"
#include "qkv/core/mapped_file.h"

namespace qkv {
namespace {

namespace fs = std::filesystem;

constexpr ssize_t kEarlyBytes = 1 << 20;  // writes of at least this size begin to reach the disk at once
constexpr size_t kBufferBytes = size_t{1} << 20;

std::string temporary_name(const std::string& path) {
  static std::atomic<unsigned> counter{0};
  return fmt::format("{}.tmp-{}-{}", path, ::getpid(), counter++);
}

std::string parent_directory(const std::string& path) {
  const auto parent = fs::path(path).parent_path();
  return parent.empty() ? "." : parent.string();
}

// Makes a rename survive a power cut. Some file systems refuse fsync on a directory; then there is nothing to
// do.
void sync_directory(const std::string& directory) {
  const int fd = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  (void)::fsync(fd);
  ::close(fd);
}

}  // namespace

AtomicFile::AtomicFile(std::string path) : path_(std::move(path)), temporary_(temporary_name(path_)) {
  fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  require(fd_ >= 0, "{}: cannot create: {}", path_, system_error_text(errno));
}

AtomicFile::~AtomicFile() {
  if (fd_ >= 0) ::close(fd_);
  if (!committed_) ::unlink(temporary_.c_str());
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  size_ += bytes.size();
  if (buffer_.size() + bytes.size() >= kBufferBytes) flush();
  if (bytes.size() >= kBufferBytes) {  // a large tensor is not gathered first
    write_through(bytes);
  } else {
    buffer_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
}

void AtomicFile::write_through(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    require(written >= 0, "{}: cannot write: {}", path_, system_error_text(errno));
#if defined(__linux__)
    // Begins writing to the disk at once, beside the work for what comes next: fsync then finds little left. A hint, no
    // promise; only fsync can fail.
    const off_t end = ::lseek(fd_, 0, SEEK_CUR);
    if (written >= kEarlyBytes && end >= written)
      (void)::sync_file_range(fd_, end - written, written, SYNC_FILE_RANGE_WRITE);
#endif
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
}

void AtomicFile::flush() {
  write_through(std::as_bytes(std::span(buffer_)));
  buffer_.clear();
}

void AtomicFile::commit() {
  flush();
  require(::fsync(fd_) == 0, "{}: cannot write to disk: {}", path_, system_error_text(errno));
  const int closed = ::close(fd_);
  fd_ = -1;
  require(closed == 0, "{}: cannot close: {}", path_, system_error_text(errno));
  require(std::rename(temporary_.c_str(), path_.c_str()) == 0, "{}: cannot rename into place: {}", path_,
          system_error_text(errno));
  committed_ = true;
  sync_directory(parent_directory(path_));
}

void write_file(const std::string& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

std::string read_file(const std::string& path) {
  const auto file = MappedFile::open(path);
  const auto bytes = file->bytes();
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

AtomicDirectory::AtomicDirectory(std::string final_path) : final_path_(std::move(final_path)) {
  while (final_path_.size() > 1 && final_path_.back() == '/') final_path_.pop_back();
  temporary_ = temporary_name(final_path_);
  std::error_code code;
  fs::create_directories(temporary_, code);
  require(!code, "{}: cannot create directory: {}", final_path_, code.message());
}

AtomicDirectory::~AtomicDirectory() {
  std::error_code ignored;
  if (!committed_) fs::remove_all(temporary_, ignored);
}

void AtomicDirectory::commit() {
  std::error_code code;
  std::string aside;
  if (fs::exists(final_path_)) {
    require(fs::is_directory(final_path_), "{}: cannot replace: expected a directory, found a file",
            final_path_);
    aside = temporary_name(final_path_);
    fs::rename(final_path_, aside, code);
    require(!code, "{}: cannot move aside: {}", final_path_, code.message());
  }
  fs::rename(temporary_, final_path_, code);
  if (code) {
    std::error_code restored;
    if (!aside.empty()) fs::rename(aside, final_path_, restored);
    fail("{}: cannot rename into place: {}", final_path_, code.message());
  }
  committed_ = true;
  sync_directory(parent_directory(final_path_));
  if (!aside.empty()) fs::remove_all(aside, code);
}

}  // namespace qkv
