// What streaming writers of every format share: the tensors are announced, then arrive one after the other,
// each as it was announced.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "qkv/formats/checkpoint.h"

namespace qkv {

// Fills in `bytes` and `file` (the name of `path`). Throws Error `[<format>] <path>: tensor 'x': ...` for a
// shape that does not go with its type.
void set_bytes_and_file(std::vector<TensorEntry>& entries, std::string_view format, const std::string& path);

class TensorSequence {
 public:
  // `format` is a literal; it and the path open the error sentences. `entries` have their bytes.
  TensorSequence(std::string_view format, std::string path, std::vector<TensorEntry> entries)
      : format_(format), path_(std::move(path)), entries_(std::move(entries)) {}

  const std::string& path() const { return path_; }
  const std::vector<TensorEntry>& entries() const { return entries_; }
  // The data of the next tensor, to be written. Throws Error if its name, type or shape is not that of the
  // next entry.
  std::span<const std::byte> accept(std::string_view tensor_name, const Tensor& tensor);
  // Throws Error naming the tensor that is still to come.
  void require_complete() const;

 private:
  std::string_view format_;
  std::string path_;
  std::vector<TensorEntry> entries_;
  size_t next_ = 0;
};

// Puts tensors into files of at most `limit` bytes of data, in the order given; one that is larger gets a
// file of its own. At least one group.
std::vector<std::vector<TensorEntry>> split_by_bytes(const std::vector<TensorEntry>& entries, uint64_t limit);

}  // namespace qkv
