#include "qkv/formats/safetensors.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/formats/content.h"
#include "qkv/formats/safetensors_header.h"

namespace qkv {
namespace {

// AtomicFile gathers what it is given before it writes: large tensors go in pieces.
constexpr size_t kPieceBytes = size_t{1} << 20;

std::vector<TensorEntry> arranged(std::vector<TensorEntry> entries, TensorOrder order,
                                  const std::string& path) {
  for (auto& entry : entries) {
    try {
      entry.bytes = tensor_bytes(entry.type, entry.shape);
    } catch (const Error& error) {
      fail("[safetensors] {}: tensor '{}': {}", path, shown(entry.name), error.what());
    }
    entry.file = std::filesystem::path(path).filename().string();
  }
  if (order == TensorOrder::aligned) {
    std::sort(entries.begin(), entries.end(), [](const TensorEntry& a, const TensorEntry& b) {
      const int a_bytes = traits(a.type).block_bytes;
      const int b_bytes = traits(b.type).block_bytes;
      return a_bytes != b_bytes ? a_bytes > b_bytes : a.name < b.name;
    });
  }
  return entries;
}

}  // namespace

SafetensorsFile::SafetensorsFile(std::string path)
    : Checkpoint(std::move(path)), file_(MappedFile::open(this->path())) {
  SafetensorsHeader header = parse_safetensors_header(file_->bytes(), this->path());
  const std::string file_name = std::filesystem::path(this->path()).filename().string();
  for (auto& entry : header.entries) entry.file = file_name;
  offsets_ = std::move(header.offsets);
  metadata_ = std::move(header.metadata);
  set_entries(std::move(header.entries));
}

SafetensorsFile::~SafetensorsFile() = default;

void SafetensorsFile::attach_configs(std::unique_ptr<const Json> config,
                                     std::unique_ptr<const Json> generation_config) {
  config_ = std::move(config);
  generation_config_ = std::move(generation_config);
}

Tensor SafetensorsFile::read_entry(size_t index) const {
  const TensorEntry& entry = entries()[index];
  const std::byte* data = file_->bytes().data() + offsets_[index];
  if (reinterpret_cast<uintptr_t>(data) % static_cast<uintptr_t>(traits(entry.type).block_bytes) == 0) {
    return Tensor::borrowed(data, entry.shape, entry.type, file_);
  }
  Tensor copy = Tensor::empty(entry.shape, entry.type);
  if (entry.bytes > 0) std::memcpy(copy.raw(), data, entry.bytes);
  return copy;
}

void SafetensorsFile::release_entry(size_t index) const {
  file_->drop_pages(offsets_[index], entries()[index].bytes);
}

SafetensorsWriter::SafetensorsWriter(std::string path, std::vector<TensorEntry> entries, TensorOrder order,
                                     const std::map<std::string, std::string>& metadata)
    : path_(std::move(path)), entries_(arranged(std::move(entries), order, path_)), file_(path_) {
  const std::string header = make_safetensors_header(entries_, metadata, path_);
  file_bytes_ = header.size();
  for (const auto& entry : entries_) file_bytes_ += entry.bytes;
  file_.write(header);
}

void SafetensorsWriter::write(std::string_view tensor_name, const Tensor& tensor) {
  require(next_ < entries_.size(),
          "[safetensors] {}: tensor '{}': expected no more than the {} listed tensors", path_,
          shown(tensor_name), entries_.size());
  const TensorEntry& entry = entries_[next_];
  require(tensor_name == entry.name, "[safetensors] {}: tensor '{}': expected tensor '{}' next", path_,
          shown(tensor_name), shown(entry.name));
  require(tensor.defined() && tensor.dtype() == entry.type && tensor.shape() == entry.shape,
          "[safetensors] {}: tensor '{}': expected {} {}, found {}", path_, shown(entry.name),
          name(entry.type), entry.shape.str(), describe(tensor));
  std::span<const std::byte> rest(tensor.raw(), entry.bytes);
  while (!rest.empty()) {
    const size_t piece = std::min(rest.size(), kPieceBytes);
    file_.write(rest.first(piece));
    rest = rest.subspan(piece);
  }
  ++next_;
}

void SafetensorsWriter::finish() {
  require(next_ == entries_.size(), "[safetensors] {}: tensor '{}': expected before the file is finished",
          path_, next_ < entries_.size() ? shown(entries_[next_].name) : "");
  file_.commit();
}

}  // namespace qkv
