#include "qkv/compress/produced_checkpoint.h"

#include <nlohmann/json.hpp>

namespace qkv {
namespace {

std::unique_ptr<Json> parsed(const HfFiles& files, const char* name) {
  const auto file = files.find(name);
  return file == files.end() ? nullptr : std::make_unique<Json>(parse_json(file->second, name));
}

}  // namespace

ProducedTensor produced_tensor(std::string name, DType type, const Shape& shape, std::function<Tensor()> make,
                               std::function<void()> release) {
  ProducedTensor tensor;
  tensor.entry.name = std::move(name);
  tensor.entry.type = type;
  tensor.entry.shape = shape;
  tensor.make = std::move(make);
  tensor.release = std::move(release);
  return tensor;
}

ProducedCheckpoint::ProducedCheckpoint(std::string path, std::vector<ProducedTensor> tensors, HfFiles files,
                                       Metadata metadata)
    : Checkpoint(std::move(path)),
      tensors_(std::move(tensors)),
      files_(std::move(files)),
      config_(parsed(files_, "config.json")),
      generation_config_(parsed(files_, "generation_config.json")) {
  metadata_ = std::move(metadata);
  std::vector<TensorEntry> entries;
  for (auto& tensor : tensors_) {
    tensor.entry.bytes = tensor_bytes(tensor.entry.type, tensor.entry.shape);
    entries.push_back(tensor.entry);
  }
  set_entries(std::move(entries));
}

std::vector<std::string> ProducedCheckpoint::file_names() const {
  std::vector<std::string> names;
  for (const auto& [name, content] : files_) names.push_back(name);
  return names;
}

std::optional<std::string> ProducedCheckpoint::file(std::string_view name) const {
  const auto file = files_.find(std::string(name));
  return file == files_.end() ? std::nullopt : std::optional(file->second);
}

void ProducedCheckpoint::release_entry(size_t index) const {
  if (tensors_[index].release) tensors_[index].release();
}

}  // namespace qkv
