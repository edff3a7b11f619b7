#include "qkv/formats/tensor_sequence.h"

#include <filesystem>

#include "qkv/core/error.h"
#include "qkv/formats/content.h"

namespace qkv {

void set_bytes_and_file(std::vector<TensorEntry>& entries, std::string_view format, const std::string& path) {
  const std::string file = std::filesystem::path(path).filename().string();
  for (auto& entry : entries) {
    try {
      entry.bytes = tensor_bytes(entry.type, entry.shape);
    } catch (const Error& error) {
      fail("[{}] {}: tensor '{}': {}", format, path, shown(entry.name), error.what());
    }
    entry.file = file;
  }
}

std::span<const std::byte> TensorSequence::accept(std::string_view tensor_name, const Tensor& tensor) {
  require(next_ < entries_.size(), "[{}] {}: tensor '{}': expected no more than the {} listed tensors",
          format_, path_, shown(tensor_name), entries_.size());
  const TensorEntry& entry = entries_[next_];
  require(tensor_name == entry.name, "[{}] {}: tensor '{}': expected tensor '{}' next", format_, path_,
          shown(tensor_name), shown(entry.name));
  require(tensor.defined() && tensor.dtype() == entry.type && tensor.shape() == entry.shape,
          "[{}] {}: tensor '{}': expected {} {}, found {}", format_, path_, shown(entry.name),
          name(entry.type), entry.shape.str(), describe(tensor));
  ++next_;
  return {tensor.raw(), entry.bytes};
}

void TensorSequence::require_complete() const {
  require(next_ == entries_.size(), "[{}] {}: tensor '{}': expected before the file is finished", format_,
          path_, next_ < entries_.size() ? shown(entries_[next_].name) : "");
}

std::vector<std::vector<TensorEntry>> split_by_bytes(const std::vector<TensorEntry>& entries,
                                                     uint64_t limit) {
  std::vector<std::vector<TensorEntry>> groups(1);
  uint64_t used = 0;
  for (const auto& entry : entries) {
    const uint64_t bytes = tensor_bytes(entry.type, entry.shape);
    if (!groups.back().empty() && (bytes > limit || used > limit - bytes)) {
      groups.emplace_back();
      used = 0;
    }
    groups.back().push_back(entry);
    used += bytes;
  }
  return groups;
}

}  // namespace qkv
