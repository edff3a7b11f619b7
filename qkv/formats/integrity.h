// Whether a checkpoint file is what its header says: every tensor whole blocks long, where the alignment
// wants it, on bytes of its own, with nothing but padding between. docs/formats/alignment.md explains the
// rules.
//
// A file can be laid out again: every tensor's bytes as they are, offsets and padding computed anew. No
// weight is ever touched, and what would lose one is refused: a tensor that is cut off, two that share bytes,
// bytes between tensors that padding cannot be.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "qkv/formats/checkpoint.h"

namespace qkv {

struct IntegrityFinding {
  std::string sentence;     // names the tensor, what was expected, what is there
  bool repairable = false;  // by laying the file out again
};

// A tensor as it lies in the file.
struct TensorPlace {
  std::string name;
  DType type = DType::f32;
  Shape shape = {};
  uint64_t offset = 0;       // from the start of the file
  uint64_t blocks = 0;       // of the type: the shape's elements / block length
  uint64_t block_bytes = 0;  // bytes of a block
  uint64_t bytes = 0;        // blocks * block_bytes
  uint64_t gap = 0;          // bytes from its end to what follows
  uint64_t padding = 0;      // as many as the alignment asks for
};

struct IntegrityReport {
  std::string format;  // "gguf", "safetensors", "qkv", or another that only its reader checks
  uint64_t alignment = 0;
  uint64_t file_bytes = 0;
  std::vector<TensorPlace> tensors;  // in the order of their data
  std::vector<IntegrityFinding> findings;

  bool ok() const { return findings.empty(); }
  // True if there is something to repair and nothing that cannot be.
  bool repairable() const;
};

// Never throws for what is in the file: a file that cannot be read at all has one finding that says why.
IntegrityReport check_integrity(const std::string& path);

// Writes the file laid out anew; it appears only after every tensor was found to have the same bytes and the
// same dequantized values as in the source. A file without findings may be laid out again, too. Error naming
// the finding that stands in the way, and for a format that is not laid out by blocks.
void repair_layout(const std::string& path, const std::string& output);

}  // namespace qkv
