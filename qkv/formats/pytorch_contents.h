// The two layouts of files that torch.save writes, and where in them each tensor's elements are:
//
// - since PyTorch 1.6 a ZIP archive, usually with everything stored: <name>/data.pkl, a pickle whose
//   persistent ids name storages, and the storages as records <name>/data/<key>;
// - before (and with _use_new_zipfile_serialization=False) a sequence of pickles: a magic number, the
//   protocol, the machine, the object, the keys of the storages in order; then per storage its number of
//   elements, 8 bytes, and the elements.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "qkv/core/metadata.h"
#include "qkv/core/parallel.h"
#include "qkv/formats/checkpoint.h"

namespace qkv {

// The bytes of a storage in the file.
struct PytorchStorage {
  uint64_t begin = 0;         // from the start of the file
  uint64_t stored_bytes = 0;  // in the file
  uint64_t bytes = 0;
  bool deflated = false;
};

// Where a tensor's elements are: element (i, j, ...) at `first` + i * strides[0] + ..., counted in elements
// from the beginning of the storage.
struct PytorchPlace {
  size_t storage = 0;
  uint64_t first = 0;
  std::array<int64_t, Shape::kMaximumRank> strides = {};
  bool contiguous = true;
};

struct PytorchContents {
  std::vector<TensorEntry> entries;  // in the order of their data; `file` is left empty
  std::vector<PytorchPlace> places;  // of each entry
  std::vector<PytorchStorage> storages;
  Metadata metadata;
};

// True if the bytes begin like either layout (or like a plain pickle, which is refused later).
bool looks_like_pytorch(std::span<const std::byte> file);

// Reads everything but the data of a whole file. Each tensor lies within its storage and each storage within
// the file. Throws Error `[pytorch] <where>: ...`.
PytorchContents parse_pytorch(std::span<const std::byte> file, std::string_view where);

// A copy of an entry's elements in row-major order; `storage` are the bytes of its storage.
Tensor gather(const TensorEntry& entry, const PytorchPlace& place, std::span<const std::byte> storage);

// The bytes of a deflated storage, as a tensor of u8.
Tensor inflate_storage(std::span<const std::byte> file, const PytorchStorage& storage,
                       std::string_view where);

// Compares every record of an archive with its checksum: a sentence for each that is damaged. Calls
// `seen(offset, bytes)` for each piece of the file that it is done with, also from other threads.
std::vector<std::string> verify_pytorch(std::span<const std::byte> archive, std::string_view where,
                                        FunctionRef<void(uint64_t offset, uint64_t bytes)> seen);

}  // namespace qkv
