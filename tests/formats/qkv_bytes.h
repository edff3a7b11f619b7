// `.qkv` files made byte by byte after docs/formats/qkv.md, without the code under test.
#pragma once

#include <xxhash.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tests/formats/binary_bytes.h"

namespace qkv::test {

inline uint64_t checksum(std::string_view bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

struct QkvChunkBytes {
  uint32_t codec = 0;
  std::string encoded;
  int64_t size = -1;  // what the record says, where it is to differ
};

// The record of a tensor or a file whose chunks were put at `offset`.
inline std::string qkv_record(std::string_view name, std::string_view type, const std::vector<uint64_t>& dims,
                              uint64_t row_bytes, uint64_t chunk_bytes, uint64_t offset,
                              const std::vector<QkvChunkBytes>& chunks) {
  Bytes bytes;
  bytes.text(name).text(type).u32(static_cast<uint32_t>(dims.size()));
  for (const uint64_t dim : dims) bytes.u64(dim);
  bytes.u64(row_bytes).u64(chunk_bytes).u64(offset);
  for (const auto& chunk : chunks) {
    bytes.u32(chunk.codec);
    bytes.u64(chunk.size < 0 ? chunk.encoded.size() : static_cast<uint64_t>(chunk.size));
    bytes.u64(checksum(chunk.encoded));
  }
  return bytes.str();
}

// The pieces of a file: give() puts them together, with checksums that hold.
struct QkvParts {
  uint32_t version = 1;
  uint32_t alignment = 64;
  uint64_t features = 0;
  std::string data;  // from offset 64 on
  std::vector<std::pair<std::string, std::string>> codecs = {{"raw", ""}};
  std::vector<std::string> pairs;
  std::vector<std::string> files;
  std::vector<std::string> tensors;
  std::string after;  // behind the last record
  // What is said, where it is to differ.
  int64_t tensor_count = -1, pair_count = -1, file_size = -1, directory_offset = -1;

  std::string directory() const {
    Bytes bytes;
    bytes.u64(codecs.size());
    for (const auto& [name, parameters] : codecs) bytes.text(name).text(parameters);
    bytes.u64(pair_count < 0 ? pairs.size() : static_cast<uint64_t>(pair_count));
    for (const auto& pair : pairs) bytes.raw(pair);
    bytes.u64(files.size());
    for (const auto& file : files) bytes.raw(file);
    bytes.u64(tensor_count < 0 ? tensors.size() : static_cast<uint64_t>(tensor_count));
    for (const auto& tensor : tensors) bytes.raw(tensor);
    return bytes.raw(after).str();
  }

  std::string give() const {
    Bytes prologue;
    prologue.raw("\x89QKV\r\n\x1a\n").u32(version).u32(alignment).u64(features).raw(std::string(32, '\0'));
    prologue.u64(checksum(prologue.str()));
    const std::string described = directory();
    const uint64_t offset = 64 + data.size();
    Bytes trailer;
    trailer.u64(directory_offset < 0 ? offset : static_cast<uint64_t>(directory_offset))
        .u64(described.size());
    trailer.u64(checksum(described));
    trailer.u64(file_size < 0 ? offset + described.size() + 64 : static_cast<uint64_t>(file_size));
    trailer.raw(std::string(16, '\0'));
    trailer.u64(checksum(trailer.str())).raw("\nQKVEND\n");
    return prologue.str() + data + described + trailer.str();
  }
};

}  // namespace qkv::test
