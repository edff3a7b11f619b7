// Writes a ZIP archive of stored records as a stream: checksums follow the data (PKWARE's APPNOTE.TXT, "data
// descriptor"), sizes beyond 32 bits are ZIP64.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "qkv/core/atomic_file.h"

namespace qkv {

class ZipWriter {
 public:
  // The archive appears at `path` on finish().
  explicit ZipWriter(std::string path);

  // Opens a record of exactly `bytes` bytes, whose data begin at a multiple of `alignment`.
  void begin(std::string name, uint64_t bytes, uint64_t alignment);
  // Appends to the open record; all calls together give the bytes announced.
  void write(std::span<const std::byte> bytes);
  void end();
  // All three in one.
  void add(std::string name, std::string_view text, uint64_t alignment);
  // Writes the directory and makes the archive appear.
  void finish();

  // A checksum of all records so far, in their order.
  uint32_t crc32_of_all() const { return crc32_of_all_; }

 private:
  struct Record {
    std::string name;
    uint64_t header = 0;  // offset of its local header
    uint64_t bytes = 0;
    uint32_t crc32 = 0;
  };
  AtomicFile file_;
  std::vector<Record> records_;
  uint64_t missing_ = 0;  // bytes of the open record
  uint32_t crc32_of_all_ = 0;
};

}  // namespace qkv
