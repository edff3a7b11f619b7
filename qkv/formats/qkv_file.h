// Reading and writing `.qkv` files: a whole model (weights, metadata, configuration, tokenizer) with
// checksums. The layout is described in qkv_layout.h and specified in docs/formats/qkv.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "qkv/codec/codec.h"
#include "qkv/core/atomic_file.h"
#include "qkv/core/mapped_file.h"
#include "qkv/formats/checkpoint.h"
#include "qkv/formats/qkv_layout.h"
#include "qkv/formats/tensor_sequence.h"

namespace qkv {

// Every defect of the data that parse_qkv() did not look at, in the order of the file: chunks that are not
// what was written, and padding that is not zero. In parallel; `seen` is called with each extent when it has
// been checked.
std::vector<std::string> verify_qkv(std::span<const std::byte> file, const QkvDirectory& directory,
                                    std::string_view where,
                                    FunctionRef<void(uint64_t offset, uint64_t bytes)> seen);

class QkvFile final : public Checkpoint {
 public:
  // Maps the file and checks all but the data of its tensors. Throws Error `[qkv] <path>: ...`.
  explicit QkvFile(std::string path);
  ~QkvFile() override;

  std::string_view format_name() const override { return "qkv"; }
  const Json* config() const override { return config_.get(); }
  const Json* generation_config() const override { return generation_config_.get(); }
  std::vector<std::string> file_names() const override;
  // Throws Error if its checksums say that it is damaged.
  std::optional<std::string> file(std::string_view name) const override;
  bool has_checksums() const override { return true; }
  // What each of the file's codecs holds, embedded files included.
  struct CodecShare {
    std::string codec;
    uint64_t chunks = 0;
    uint64_t bytes = 0, stored_bytes = 0;  // decoded, and in the file
  };
  std::vector<CodecShare> codec_shares() const;
  // `[qkv] <path>: tensor 'x': chunk 3 at offset 3145792: expected the checksum ..., found ...`.
  std::vector<std::string> verify() const override;

 private:
  std::unique_ptr<const Json> parsed_file(std::string_view name) const;
  Tensor read_entry(size_t index) const override;
  void release_entry(size_t index) const override;

  std::shared_ptr<const MappedFile> file_;
  QkvDirectory directory_;
  std::vector<char> is_plain_;  // of each tensor
  std::unique_ptr<const Json> config_;
  std::unique_ptr<const Json> generation_config_;
};

struct QkvWriterOptions {
  uint32_t alignment = kQkvDefaultAlignment;  // of every tensor, from the start of the file
  uint64_t chunk_bytes = uint64_t{1} << 20;   // at most; whole rows where a row fits
  uint64_t row_alignment = 1;                 // rows are padded to a multiple; readers then copy the tensor
  std::optional<CodecOptions> lossless = {};  // how chunks are compressed; nothing: they are not
};

// Streams tensors into a file that appears on finish(). Never holds more than the tensor being written and a
// few chunks. The file is the same for any number of threads.
class QkvWriter {
 public:
  // `entries` give the name, type and shape of everything that will be written, in this order; `files` are
  // the name and the content of each file to embed (config.json and generation_config.json are the model's
  // configurations).
  QkvWriter(std::string path, std::vector<TensorEntry> entries, Metadata metadata,
            const std::vector<std::pair<std::string, std::string>>& files = {},
            QkvWriterOptions options = {});

  const std::vector<TensorEntry>& entries() const { return sequence_.entries(); }
  // Appends the next tensor. Throws Error if its name, type or shape is not that of the next entry, or if the
  // disk is full.
  void write(std::string_view name, const Tensor& tensor);
  // Makes the file appear. Throws Error if a tensor is still to come.
  void finish();

 private:
  QkvRecord append(const TensorEntry& entry, std::span<const std::byte> data, uint64_t row_alignment);

  TensorSequence sequence_;
  QkvWriterOptions options_;
  QkvDirectory directory_;
  AtomicFile file_;
  std::vector<std::unique_ptr<ChunkEncoder>> encoders_;  // one per thread, if chunks are compressed
};

}  // namespace qkv
