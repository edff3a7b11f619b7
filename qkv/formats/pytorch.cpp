#include "qkv/formats/pytorch.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "qkv/formats/zip.h"

namespace qkv {

PytorchFile::PytorchFile(std::string path)
    : Checkpoint(std::move(path)), file_(MappedFile::open(this->path())) {
  PytorchContents contents = parse_pytorch(file_->bytes(), this->path());
  const std::string file_name = std::filesystem::path(this->path()).filename().string();
  for (auto& entry : contents.entries) entry.file = file_name;
  places_ = std::move(contents.places);
  storages_ = std::move(contents.storages);
  metadata_ = std::move(contents.metadata);
  set_entries(std::move(contents.entries));
}

PytorchFile::~PytorchFile() = default;

void PytorchFile::attach_configs(std::unique_ptr<const Json> config,
                                 std::unique_ptr<const Json> generation_config) {
  config_ = std::move(config);
  generation_config_ = std::move(generation_config);
}

bool PytorchFile::has_checksums() const {
  return looks_like_zip(file_->bytes());
}

std::vector<std::string> PytorchFile::verify() const {
  if (!has_checksums()) return {};
  return verify_pytorch(file_->bytes(), path(),
                        [&](uint64_t offset, uint64_t bytes) { file_->drop_pages(offset, bytes); });
}

Tensor PytorchFile::read_entry(size_t index) const {
  const TensorEntry& entry = entries()[index];
  const PytorchPlace& place = places_[index];
  const PytorchStorage& storage = storages_[place.storage];
  if (storage.deflated) {
    const Tensor bytes = inflate_storage(file_->bytes(), storage, path());
    return gather(entry, place, {bytes.raw(), storage.bytes});
  }
  const auto stored = file_->bytes().subspan(storage.begin, storage.bytes);
  if (place.contiguous && entry.bytes > 0) {
    const auto unit = static_cast<uint64_t>(traits(entry.type).block_bytes);
    return mapped_tensor(entry, stored.data() + place.first * unit, file_);
  }
  return gather(entry, place, stored);
}

void PytorchFile::release_entry(size_t index) const {
  const PytorchStorage& storage = storages_[places_[index].storage];
  file_->drop_pages(storage.begin, storage.stored_bytes);
}

}  // namespace qkv
