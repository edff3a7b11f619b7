// The header of a safetensors file (https://github.com/huggingface/safetensors, "Format"): 8 bytes of
// little-endian header length, a JSON object {name: {dtype, shape, data_offsets: [begin, end]}} padded with
// spaces, then the data. The offsets count from the end of the header and must cover the data exactly once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "qkv/core/metadata.h"
#include "qkv/formats/checkpoint.h"

namespace qkv {

constexpr size_t kSafetensorsLengthBytes = 8;
constexpr uint64_t kSafetensorsHeaderLimit = 100'000'000;  // bytes, as the reference implementation has it
constexpr std::string_view kSafetensorsMetadataKey = "__metadata__";

struct SafetensorsHeader {
  std::vector<TensorEntry> entries;  // in the order of their data; `file` is left empty
  std::vector<uint64_t> offsets;     // of each entry's first byte, from the start of the file
  Metadata metadata;                 // __metadata__: strings only
};

// The first 8 bytes as a number; `file` has at least that many.
uint64_t safetensors_header_length(std::span<const std::byte> file);

// Reads and checks the header of a whole file (its data is not touched). Throws Error `[safetensors] <where>:
// ...` naming the tensor for anything that the format does not allow, and for what it allows and this program
// does not hold: more than four dimensions, element types without a DType.
SafetensorsHeader parse_safetensors_header(std::span<const std::byte> file, std::string_view where);

// The length, the JSON and its padding to a multiple of 8 bytes, for tensors whose data follow in this order.
// Throws Error naming the tensor for a duplicate or reserved name, a name that is not UTF-8, a type that the
// format lacks, or a header beyond the limit. `entries[i].bytes` must be set.
std::string make_safetensors_header(const std::vector<TensorEntry>& entries,
                                    const std::map<std::string, std::string>& metadata,
                                    std::string_view where);

}  // namespace qkv
