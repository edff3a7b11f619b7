// qkv convert: any checkpoint into any container, tensor by tensor, in bounded memory.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "qkv/codec/codec.h"
#include "qkv/models/conversion_plan.h"

namespace qkv {

struct ConvertOptions {
  std::optional<DType> type;  // see plan_conversion()
  std::optional<uint64_t>
      max_file_bytes;    // of data in one file; 5 GB for Hugging Face directories, none for GGUF
  // Compresses what goes into a .qkv file; Error for any other container.
  std::optional<CodecOptions> lossless = {};
  std::string manifest;  // where to write the tensors' hashes; empty: nowhere
  // Called once when it is clear what will be written.
  std::function<void(Container container, uint64_t bytes, size_t tensors)> planned = {};
  // Called after every tensor with the bytes written so far.
  std::function<void(uint64_t bytes)> progress = {};
};

struct ConvertReport {
  Container container = Container::huggingface;
  uint64_t bytes = 0;       // of tensors
  uint64_t file_bytes = 0;  // of the file, if it is a single one
  size_t tensors = 0;
  std::vector<std::string> notes;
};

// By the form of the name: x.gguf, x.qkv, x.safetensors, x.pt, x.pth or x.bin; anything else is a Hugging
// Face directory.
Container container_of(const std::string& path);
std::string_view container_name(Container container);

// Writes `output` whole or not at all. Error if it would replace the source or a directory that is not empty,
// if the disk has no room for it, and as plan_conversion().
ConvertReport convert_checkpoint(const std::string& source, const std::string& output,
                                 const ConvertOptions& options = {});
// The same for a checkpoint that is open.
ConvertReport convert_checkpoint(const Checkpoint& source, const std::string& output,
                                 const ConvertOptions& options = {});

}  // namespace qkv
