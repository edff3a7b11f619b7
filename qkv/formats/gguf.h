// Reading and writing GGUF checkpoints, in one file or split. The format is described in gguf_header.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "qkv/core/atomic_file.h"
#include "qkv/core/mapped_file.h"
#include "qkv/formats/checkpoint.h"
#include "qkv/formats/gguf_header.h"
#include "qkv/formats/tensor_sequence.h"

namespace qkv {

// Tensors have the names that are in the file ("blk.0.attn_q.weight") and row-major shapes: GGUF's dimensions
// reversed.
class GgufFile final : public Checkpoint {
 public:
  // Maps the file and checks its header; any file of a split checkpoint (x-00002-of-00003.gguf) opens all of
  // them. Throws Error `[gguf] <path>: ...`.
  explicit GgufFile(std::string path);
  ~GgufFile() override;

  std::string_view format_name() const override { return "gguf"; }
  // Of the file that was named.
  uint32_t version() const { return version_; }
  size_t file_count() const { return files_.size(); }

 private:
  struct Place {
    size_t file;
    uint64_t offset;
  };

  void open_split(const GgufHeader& header, std::vector<TensorEntry>& entries);
  void add_file(const std::string& path, std::shared_ptr<const MappedFile> file, GgufHeader header,
                std::vector<TensorEntry>& entries);
  Tensor read_entry(size_t index) const override;
  void release_entry(size_t index) const override;

  uint32_t version_ = 0;
  std::vector<std::shared_ptr<const MappedFile>> files_;
  std::vector<Place> places_;
};

// Streams tensors into a file that appears on finish(). Never holds more than the tensor being written.
class GgufWriter {
 public:
  // `entries` give the name, type and shape of everything that will be written, in this order. Metadata are
  // written with their exact types and in their order; general.alignment among them sets the alignment.
  GgufWriter(std::string path, std::vector<TensorEntry> entries, const Metadata& metadata);

  const std::vector<TensorEntry>& entries() const { return sequence_.entries(); }
  // Appends the next tensor. Throws Error if its name, type or shape is not that of the next entry, or if the
  // disk is full.
  void write(std::string_view name, const Tensor& tensor);
  // Makes the file appear. Throws Error if a tensor is still to come.
  void finish();

 private:
  TensorSequence sequence_;
  uint64_t alignment_;
  AtomicFile file_;
};

// Writes `path`, or, when the data pass `max_file_bytes`, <path without .gguf>-00001-of-0000N.gguf ..., which
// all appear at the end. The first has the metadata, as llama.cpp wants it. Returns the paths.
std::vector<std::string> write_gguf(const std::string& path, const std::vector<TensorEntry>& entries,
                                    const Metadata& metadata, TensorProvider provider,
                                    uint64_t max_file_bytes = UINT64_MAX);

}  // namespace qkv
