// ZIP archives as far as PyTorch's checkpoints are made of them (PKWARE's APPNOTE.TXT): the central directory
// of a mapped file, with ZIP64; records stored or deflated.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace qkv {

struct ZipRecord {
  std::string name;
  uint64_t begin = 0;         // of the stored bytes, from the start of the file
  uint64_t stored_bytes = 0;  // in the file
  uint64_t bytes = 0;         // of the record itself
  uint32_t crc32 = 0;         // of the record itself
  bool deflated = false;
};

// True if the bytes begin like an archive's.
bool looks_like_zip(std::span<const std::byte> file);

// In the order of the directory. Every record lies within the file. Throws Error `<where>: record 'x': ...`
// for what is damaged, encrypted or compressed in another way, and for a name that is there twice.
std::vector<ZipRecord> read_zip_directory(std::span<const std::byte> file, std::string_view where);

// The stored bytes of a record.
std::span<const std::byte> stored_bytes(std::span<const std::byte> file, const ZipRecord& record);

// Undoes the deflation of a record into `out`, which has exactly its bytes. Throws Error if they are not what
// the record says.
void inflate_zip_record(std::span<const std::byte> file, const ZipRecord& record, std::span<std::byte> out,
                        std::string_view where);

// The checksum that archives have; `before` is that of the bytes in front of these.
uint32_t crc32(std::span<const std::byte> bytes, uint32_t before = 0);

}  // namespace qkv
