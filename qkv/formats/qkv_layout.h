// The layout of a `.qkv` file, which docs/formats/qkv.md specifies: a prologue, the data, a directory that
// describes them, and a trailer that says where the directory is. Everything here works on bytes in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "qkv/core/metadata.h"
#include "qkv/formats/checkpoint.h"

namespace qkv {

constexpr std::string_view kQkvMagic = "\x89QKV\r\n\x1a\n";
constexpr std::string_view kQkvEndMagic = "\nQKVEND\n";
constexpr uint32_t kQkvVersion = 1;
constexpr uint64_t kQkvPrologueBytes = 64;
constexpr uint64_t kQkvTrailerBytes = 64;
constexpr uint32_t kQkvDefaultAlignment = 64;
constexpr uint32_t kQkvLargestAlignment = uint32_t{1} << 20;

// How a codec of the file's chunks is called, and what all its chunks share (a dictionary, say).
struct QkvCodec {
  std::string name;
  std::string parameters;
};

// A piece of a record's data: `chunk_bytes` of them (the last one has the rest), encoded.
struct QkvChunk {
  uint32_t codec = 0;  // index into the file's codecs
  uint64_t encoded_bytes = 0;
  uint64_t checksum = 0;  // XXH3-64 of the encoded bytes
  uint64_t offset = 0;    // from the start of the file; not stored: chunks follow each other
};

// A tensor or an embedded file (a vector of u8).
struct QkvRecord {
  TensorEntry entry;
  uint64_t row_bytes = 0;    // of a stored row: at least those of the row itself, the rest is padding
  uint64_t chunk_bytes = 0;  // of the stored rows, before encoding
  uint64_t offset = 0;       // of the first chunk, from the start of the file
  std::vector<QkvChunk> chunks;

  uint64_t stored_bytes() const { return static_cast<uint64_t>(entry.shape.rows()) * row_bytes; }
  uint64_t end() const {
    return chunks.empty() ? offset : chunks.back().offset + chunks.back().encoded_bytes;
  }
};

struct QkvDirectory {
  uint32_t alignment = kQkvDefaultAlignment;
  std::vector<QkvCodec> codecs;
  Metadata metadata;
  std::vector<QkvRecord> files;    // in the order of their data, which
  std::vector<QkvRecord> tensors;  // precede those of the tensors
  uint64_t offset = 0;             // of the directory itself: the end of the data
};

bool looks_like_qkv(std::span<const std::byte> file);

// Reads and checks everything but the data. Throws Error `[qkv] <where>: ...` naming what is damaged.
QkvDirectory parse_qkv(std::span<const std::byte> file, std::string_view where);

std::string make_qkv_prologue(uint32_t alignment);
// The directory without its trailer. Throws Error for a name that cannot be.
std::string make_qkv_directory(const QkvDirectory& directory, std::string_view where);
std::string make_qkv_trailer(uint64_t directory_offset, std::string_view directory);

// The checksum of every part of the file.
uint64_t qkv_checksum(std::span<const std::byte> bytes);
inline uint64_t qkv_checksum(std::string_view bytes) {
  return qkv_checksum(std::as_bytes(std::span(bytes.data(), bytes.size())));
}

// ---- data ----

// True if the record's bytes lie in the file as its tensor has them: nothing encoded, no padding in rows.
bool is_plain(const QkvDirectory& directory, const QkvRecord& record);
// The record's tensor, decoded and without padding, in memory of its own: in parallel, each chunk's checksum
// first. `subject` ("tensor 'x'") names it in errors. Throws Error for a codec that this program does not
// know, before anything is allocated.
Tensor decode_qkv_record(std::span<const std::byte> file, const QkvDirectory& directory,
                         const QkvRecord& record, std::string_view subject, std::string_view where);
// "chunk 3 at offset 3145792: ..." if the chunk's bytes are not those that were written; empty if they are.
std::string chunk_damage(std::span<const std::byte> file, const QkvChunk& chunk, size_t number);

}  // namespace qkv
