// What every checkpoint format gives: a list of named tensors, read one at a time without copying, and what
// the model's authors said about it. Models, converters and inspectors are written against this and never
// learn the format.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "qkv/core/json.h"
#include "qkv/core/metadata.h"
#include "qkv/core/parallel.h"
#include "qkv/tensor/tensor.h"

namespace qkv {

struct TensorEntry {
  std::string name;
  DType type = DType::f32;
  Shape shape = {};
  uint64_t bytes = 0;     // of the data; writers compute it themselves
  std::string file = {};  // the name (no directory) of the file that holds it; writers ignore it
};

// Bytes of a tensor. Throws Error when the last dimension is no multiple of a block type's length, or past
// 2^63 bytes.
uint64_t tensor_bytes(DType type, const Shape& shape);

// Gives a writer the tensor of an entry, with exactly its dtype and shape. Called once per entry, one at a
// time, file by file.
using TensorProvider = FunctionRef<Tensor(const TensorEntry& entry)>;

class Checkpoint {
 public:
  virtual ~Checkpoint() = default;
  Checkpoint(const Checkpoint&) = delete;
  Checkpoint& operator=(const Checkpoint&) = delete;

  // As the user named it.
  const std::string& path() const { return path_; }
  // "safetensors", "pytorch", "gguf", "huggingface".
  virtual std::string_view format_name() const = 0;

  // In the order of their data, so that reading them in this order is sequential.
  const std::vector<TensorEntry>& entries() const { return entries_; }
  // Null if there is none of that name.
  const TensorEntry* find(std::string_view name) const;
  // Sum of the entries' bytes.
  uint64_t total_bytes() const;

  // The tensor, borrowed from the mapped file, which it keeps alive (also beyond the Checkpoint); copied only
  // where the file left it unaligned for its type. The data must not be written. Throws Error naming the
  // nearest name if there is no such tensor. Safe to call from several threads.
  Tensor read(std::string_view name) const;
  // Gives the pages of the tensor back to the system after streaming over it; it may be read again.
  void release(std::string_view name) const;

  // The checkpoint as the file has it, where this one is a view that dequantizes (quantized/dequantized.h).
  virtual const Checkpoint& stored() const { return *this; }

  // The model's config.json; null if it has none.
  virtual const Json* config() const { return nullptr; }
  // Default sampling settings, generation_config.json; null if there are none.
  virtual const Json* generation_config() const { return nullptr; }
  // Typed key/value pairs inside the file itself; empty if the format or the file has none.
  virtual const Metadata& metadata() const { return metadata_; }

  // The files beside the weights that make them a usable model (config.json, tokenizer.json,
  // chat_template.jinja): names without a directory.
  virtual std::vector<std::string> file_names() const { return {}; }
  // The content of one of them; nothing if there is no such file.
  virtual std::optional<std::string> file(std::string_view) const { return std::nullopt; }

  // True if the format has checksums of its data.
  virtual bool has_checksums() const { return false; }
  // Reads everything that opening did not and compares checksums: one sentence for each defect, none if all
  // is as it was written or the format has no checksums.
  virtual std::vector<std::string> verify() const { return {}; }

 protected:
  explicit Checkpoint(std::string path) : path_(std::move(path)) {}
  // Names must be unique; the format checks that with an error of its own.
  void set_entries(std::vector<TensorEntry> entries);
  virtual Tensor read_entry(size_t index) const = 0;
  virtual void release_entry(size_t) const {}
  // The entry's tensor over mapped data that `owner` holds, or a copy if they are not aligned for its type.
  static Tensor mapped_tensor(const TensorEntry& entry, const std::byte* data,
                              std::shared_ptr<const void> owner);

  Metadata metadata_;

 private:
  size_t index_of(std::string_view name) const;
  std::string path_;
  std::vector<TensorEntry> entries_;
  std::unordered_map<std::string_view, size_t> index_;  // keys point into entries_
};

// Opens a model by what is there, not by what it is called: a Hugging Face directory (hf_directory.h) or a
// file of any format in checkpoint_formats.cpp. A safetensors or PyTorch file takes the config.json and
// generation_config.json beside it for its own; any file of a split GGUF stands for all of them. Throws Error
// saying what was found and what is supported. A model with a quantization_config is given as a view of plain
// tensors; stored() of it are the tensors as they are.
std::unique_ptr<Checkpoint> open_checkpoint(const std::string& path);

}  // namespace qkv
