// Reading and writing single safetensors files. The format is described in safetensors_header.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "qkv/core/atomic_file.h"
#include "qkv/core/mapped_file.h"
#include "qkv/formats/checkpoint.h"
#include "qkv/formats/tensor_sequence.h"

namespace qkv {

class SafetensorsFile final : public Checkpoint {
 public:
  // Maps the file and checks its header. Throws Error `[safetensors] <path>: tensor 'x': expected ..., found
  // ...`.
  explicit SafetensorsFile(std::string path);
  ~SafetensorsFile() override;

  std::string_view format_name() const override { return "safetensors"; }
  const Json* config() const override { return config_.get(); }
  const Json* generation_config() const override { return generation_config_.get(); }
  // What config() and generation_config() give from now on.
  void attach_configs(std::unique_ptr<const Json> config, std::unique_ptr<const Json> generation_config);

 private:
  Tensor read_entry(size_t index) const override;
  void release_entry(size_t index) const override;

  std::shared_ptr<const MappedFile> file_;
  std::vector<uint64_t> offsets_;
  std::unique_ptr<const Json> config_;
  std::unique_ptr<const Json> generation_config_;
};

// In what order tensors lie in a written file.
enum class TensorOrder {
  // By size of the element, largest first, then by name: every tensor is aligned for its type, as in files by
  // the reference
  // implementation.
  aligned,
  // As listed. Where a type of larger elements follows one of smaller ones it may be unaligned, and readers
  // copy it.
  given,
};

// Streams tensors into a file that appears on finish(). Never holds more than the tensor being written.
class SafetensorsWriter {
 public:
  // `entries` give the name, type and shape of everything that will be written. Throws Error naming the
  // tensor that the format cannot hold, or the path that cannot be created.
  SafetensorsWriter(std::string path, std::vector<TensorEntry> entries,
                    TensorOrder order = TensorOrder::aligned,
                    const std::map<std::string, std::string>& metadata = {{"format", "pt"}});

  // The order in which write() must be called.
  const std::vector<TensorEntry>& entries() const { return sequence_.entries(); }
  // The size that the finished file will have, in bytes.
  uint64_t file_bytes() const { return file_bytes_; }
  // Appends the next tensor. Throws Error if its name, type or shape is not that of the next entry, or if the
  // disk is full.
  void write(std::string_view name, const Tensor& tensor);
  // Makes the file appear. Throws Error if a tensor is still to come.
  void finish();

 private:
  TensorSequence sequence_;
  uint64_t file_bytes_ = 0;
  AtomicFile file_;
};

}  // namespace qkv
