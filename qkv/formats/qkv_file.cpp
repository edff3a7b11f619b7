#include "qkv/formats/qkv_file.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/formats/content.h"
#include "qkv/formats/python_json.h"

namespace qkv {
namespace {

std::string subject_of(std::string_view kind, const QkvRecord& record) {
  return fmt::format("{} '{}'", kind, shown(record.entry.name));
}

// A chunk or a stretch of padding.
struct Piece {
  const QkvRecord* record = nullptr;  // null: padding
  std::string_view kind;
  size_t chunk = 0;
  uint64_t offset = 0;
  uint64_t bytes = 0;
};

std::vector<Piece> pieces_of(const QkvDirectory& directory) {
  std::vector<Piece> pieces;
  uint64_t position = kQkvPrologueBytes;
  // Records without data have no extent.
  const auto add_padding = [&](uint64_t end) {
    if (end > position) pieces.push_back({nullptr, "", 0, position, end - position});
    position = end;
  };
  const auto add_records = [&](const std::vector<QkvRecord>& records, std::string_view kind) {
    for (const QkvRecord& record : records) {
      if (record.chunks.empty()) continue;
      add_padding(record.offset);
      for (size_t i = 0; i < record.chunks.size(); ++i) {
        pieces.push_back({&record, kind, i, record.chunks[i].offset, record.chunks[i].encoded_bytes});
      }
      position = record.end();
    }
  };
  add_records(directory.files, "file");
  add_records(directory.tensors, "tensor");
  add_padding(directory.offset);
  return pieces;
}

}  // namespace

std::vector<std::string> verify_qkv(std::span<const std::byte> file, const QkvDirectory& directory,
                                    std::string_view where,
                                    FunctionRef<void(uint64_t offset, uint64_t bytes)> seen) {
  const std::vector<Piece> pieces = pieces_of(directory);
  std::vector<std::string> defects(pieces.size());
  parallel_items(static_cast<int64_t>(pieces.size()), [&](int64_t item, int) {
    const Piece& piece = pieces[static_cast<size_t>(item)];
    std::string& defect = defects[static_cast<size_t>(item)];
    if (piece.record != nullptr) {
      const std::string damage = chunk_damage(file, piece.record->chunks[piece.chunk], piece.chunk);
      if (!damage.empty()) {
        defect = fmt::format("[qkv] {}: {}: {}", where, subject_of(piece.kind, *piece.record), damage);
      }
    } else {
      const auto bytes = file.subspan(piece.offset, piece.bytes);
      const auto wrong =
          std::find_if(bytes.begin(), bytes.end(), [](std::byte byte) { return byte != std::byte{0}; });
      if (wrong != bytes.end()) {
        defect = fmt::format("[qkv] {}: padding at offset {}: expected zeros, found the byte {:02x}", where,
                             piece.offset + static_cast<uint64_t>(wrong - bytes.begin()),
                             static_cast<unsigned>(*wrong));
      }
    }
    seen(piece.offset, piece.bytes);
  });
  std::erase_if(defects, [](const std::string& defect) { return defect.empty(); });
  return defects;
}

QkvFile::QkvFile(std::string path)
    : Checkpoint(std::move(path)),
      file_(MappedFile::open(this->path())),
      directory_(parse_qkv(file_->bytes(), this->path())) {
  metadata_ = std::move(directory_.metadata);
  const std::string own_name = std::filesystem::path(this->path()).filename().string();
  std::vector<TensorEntry> entries;
  for (const QkvRecord& record : directory_.tensors) {
    entries.push_back(record.entry);
    entries.back().file = own_name;
    is_plain_.push_back(is_plain(directory_, record) ? 1 : 0);
  }
  set_entries(std::move(entries));
  config_ = parsed_file("config.json");
  generation_config_ = parsed_file("generation_config.json");
}

QkvFile::~QkvFile() = default;

std::vector<std::string> QkvFile::file_names() const {
  std::vector<std::string> names;
  for (const QkvRecord& record : directory_.files) names.push_back(record.entry.name);
  return names;
}

std::optional<std::string> QkvFile::file(std::string_view name) const {
  const auto record = std::find_if(directory_.files.begin(), directory_.files.end(),
                                   [&](const QkvRecord& candidate) { return candidate.entry.name == name; });
  if (record == directory_.files.end()) return std::nullopt;
  const Tensor bytes =
      decode_qkv_record(file_->bytes(), directory_, *record, subject_of("file", *record), path());
  return std::string(reinterpret_cast<const char*>(bytes.raw()), bytes.bytes());
}

std::unique_ptr<const Json> QkvFile::parsed_file(std::string_view name) const {
  const auto text = file(name);
  if (!text) return nullptr;
  auto json = std::make_unique<Json>(parse_python_json(*text, fmt::format("{}: {}", path(), name)));
  require(json->is_object(), "[qkv] {}: file '{}': expected an object, found {}", path(), name,
          json->type_name());
  return json;
}

std::vector<QkvFile::CodecShare> QkvFile::codec_shares() const {
  std::vector<CodecShare> shares;
  for (const QkvCodec& codec : directory_.codecs) shares.push_back({codec.name});
  for (const auto* records : {&directory_.files, &directory_.tensors}) {
    for (const QkvRecord& record : *records) {
      uint64_t left = record.stored_bytes();
      for (const QkvChunk& chunk : record.chunks) {
        CodecShare& share = shares[chunk.codec];
        ++share.chunks;
        share.bytes += std::min(left, record.chunk_bytes);
        share.stored_bytes += chunk.encoded_bytes;
        left -= std::min(left, record.chunk_bytes);
      }
    }
  }
  return shares;
}

std::vector<std::string> QkvFile::verify() const {
  return verify_qkv(file_->bytes(), directory_, path(),
                    [&](uint64_t offset, uint64_t bytes) { file_->drop_pages(offset, bytes); });
}

Tensor QkvFile::read_entry(size_t index) const {
  const QkvRecord& record = directory_.tensors[index];
  if (is_plain_[index]) return mapped_tensor(entries()[index], file_->bytes().data() + record.offset, file_);
  return decode_qkv_record(file_->bytes(), directory_, record, subject_of("tensor", record), path());
}

void QkvFile::release_entry(size_t index) const {
  const QkvRecord& record = directory_.tensors[index];
  file_->drop_pages(record.offset, record.end() - record.offset);
}

}  // namespace qkv
