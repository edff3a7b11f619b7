#include "qkv/formats/safetensors.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/formats/content.h"
#include "qkv/formats/safetensors_header.h"

namespace qkv {
namespace {

std::vector<TensorEntry> arranged(std::vector<TensorEntry> entries, TensorOrder order,
                                  const std::string& path) {
  set_bytes_and_file(entries, "safetensors", path);
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
  return mapped_tensor(entries()[index], file_->bytes().data() + offsets_[index], file_);
}

void SafetensorsFile::release_entry(size_t index) const {
  file_->drop_pages(offsets_[index], entries()[index].bytes);
}

SafetensorsWriter::SafetensorsWriter(std::string path, std::vector<TensorEntry> entries, TensorOrder order,
                                     const std::map<std::string, std::string>& metadata)
    : sequence_("safetensors", path, arranged(std::move(entries), order, path)), file_(std::move(path)) {
  const std::string header = make_safetensors_header(sequence_.entries(), metadata, sequence_.path());
  file_bytes_ = header.size();
  for (const auto& entry : sequence_.entries()) file_bytes_ += entry.bytes;
  file_.write(header);
}

void SafetensorsWriter::write(std::string_view name, const Tensor& tensor) {
  file_.write(sequence_.accept(name, tensor));
}

void SafetensorsWriter::finish() {
  sequence_.require_complete();
  file_.commit();
}

}  // namespace qkv
