// Reading and writing PyTorch's checkpoint files (.pt, .pth, .bin). The layouts are described in
// pytorch_contents.h; nothing in a file is ever executed (pickle.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "qkv/core/mapped_file.h"
#include "qkv/formats/checkpoint.h"
#include "qkv/formats/pytorch_contents.h"
#include "qkv/formats/tensor_sequence.h"
#include "qkv/formats/zip_writer.h"

namespace qkv {

// Stored, contiguous and aligned tensors are borrowed from the mapped file; others are gathered on read.
// Tensors that share a storage are entries of their own. metadata() has the numbers and texts that the file
// holds beside tensors.
class PytorchFile final : public Checkpoint {
 public:
  // Maps the file and reads its pickles. Throws Error `[pytorch] <path>: ...`.
  explicit PytorchFile(std::string path);
  ~PytorchFile() override;

  std::string_view format_name() const override { return "pytorch"; }
  const Json* config() const override { return config_.get(); }
  const Json* generation_config() const override { return generation_config_.get(); }
  // What config() and generation_config() give from now on.
  void attach_configs(std::unique_ptr<const Json> config, std::unique_ptr<const Json> generation_config);

  // Archives have a checksum of each record, files of the legacy layout none.
  bool has_checksums() const override;
  std::vector<std::string> verify() const override;

 private:
  Tensor read_entry(size_t index) const override;
  void release_entry(size_t index) const override;

  std::shared_ptr<const MappedFile> file_;
  std::vector<PytorchPlace> places_;
  std::vector<PytorchStorage> storages_;
  std::unique_ptr<const Json> config_;
  std::unique_ptr<const Json> generation_config_;
};

// Streams tensors into a file that appears on finish(): an OrderedDict of tensors as torch.save writes it,
// which torch.load(weights_only=True) reads; each storage begins at a multiple of 64 bytes, so that loaders
// can map it. Never holds more than the tensor being written.
class PytorchWriter {
 public:
  // `entries` give the name, type and shape of everything that will be written. Throws Error naming the
  // tensor that the format cannot hold, or the path that cannot be created.
  PytorchWriter(std::string path, std::vector<TensorEntry> entries);

  // The order in which write() must be called: as given.
  const std::vector<TensorEntry>& entries() const { return sequence_.entries(); }
  // Appends the next tensor. Throws Error if its name, type or shape is not that of the next entry, or if the
  // disk is full.
  void write(std::string_view name, const Tensor& tensor);
  // Makes the file appear. Throws Error if a tensor is still to come.
  void finish();

 private:
  TensorSequence sequence_;
  size_t written_ = 0;
  ZipWriter archive_;
};

}  // namespace qkv
