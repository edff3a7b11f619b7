// The header of a GGUF file, versions 2 and 3: the magic, the version, the counts, typed key/value pairs, one
// record per tensor (name, dimensions with the fastest first, type id, offset), padding. The data follow,
// each tensor at a multiple of general.alignment from their start. Specification:
// https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
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

constexpr std::string_view kGgufMagic = "GGUF";
constexpr std::string_view kGgufAlignmentKey = "general.alignment";
constexpr uint64_t kGgufDefaultAlignment = 32;
// llama.cpp keeps names in arrays of 64 bytes that end with a zero, and refuses files with longer ones.
constexpr size_t kGgufLongestName = 63;

struct GgufHeader {
  uint32_t version = 3;
  uint64_t alignment = kGgufDefaultAlignment;
  Metadata metadata;                 // everything, general.alignment included
  std::vector<TensorEntry> entries;  // in the order of their data; `file` is left empty
  std::vector<uint64_t> offsets;     // of each entry's first byte, from the start of the file
};

bool looks_like_gguf(std::span<const std::byte> file);

// What the header says, wherever it puts the data.
struct GgufRecords {
  struct Item {
    TensorEntry entry;
    uint64_t offset = 0;  // from the start of the data
  };
  uint32_t version = 3;
  uint64_t alignment = kGgufDefaultAlignment;
  Metadata metadata;
  std::vector<Item> items;  // in the header's order
  uint64_t header_bytes = 0;
  uint64_t data_begin = 0;  // may be the end of the file
};
// Throws Error for a header that cannot be read; offsets are not checked (integrity.h does that).
GgufRecords parse_gguf_records(std::span<const std::byte> file, std::string_view where);

// Reads and checks the header of a whole file (its data is not touched). Throws Error `[gguf] <where>: ...`
// naming the key or the tensor for anything that the format does not allow, and for big-endian files and
// types without a DType.
GgufHeader parse_gguf_header(std::span<const std::byte> file, std::string_view where);

// The alignment that the metadata ask for. Throws Error unless it is a u32 and a power of two.
uint64_t gguf_alignment(const Metadata& metadata, std::string_view where);

// A version 3 header with its padding, for tensors whose data follow in this order, each padded to the
// alignment. `entries[i].bytes` must be set. Throws Error naming the tensor for a duplicate or overlong name
// and a type that the format lacks.
std::string make_gguf_header(const std::vector<TensorEntry>& entries, const Metadata& metadata,
                             std::string_view where);

}  // namespace qkv
