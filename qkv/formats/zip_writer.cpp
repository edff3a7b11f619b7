#include "qkv/formats/zip_writer.h"

#include <algorithm>

#include "qkv/core/error.h"
#include "qkv/formats/byte_reader.h"
#include "qkv/formats/zip.h"

namespace qkv {
namespace {

constexpr uint16_t kVersion = 20;              // needed to read a record
constexpr uint16_t kVersion64 = 45;            // with ZIP64
constexpr uint16_t kFlags = 1 << 3 | 1 << 11;  // a data descriptor; names in UTF-8
constexpr uint16_t kZip64Extra = 1;
// The id of the extra field that PyTorch pads with, so that data are aligned.
constexpr uint16_t kPaddingExtra = 0x4246;
constexpr uint64_t kLocalBytes = 30;
// Between the checksum of some bytes and writing them they stay in the cache.
constexpr size_t kPieceBytes = size_t{1} << 20;

// A number of 32 bits, or the sign that ZIP64 has it.
void put_32(std::string& out, uint64_t value) {
  append_number(out, static_cast<uint32_t>(std::min<uint64_t>(value, UINT32_MAX)));
}
bool is_large(uint64_t value) {
  return value >= UINT32_MAX;
}

}  // namespace

ZipWriter::ZipWriter(std::string path) : file_(std::move(path)) {}

void ZipWriter::begin(std::string name, uint64_t bytes, uint64_t alignment) {
  Record record{std::move(name), file_.size(), bytes, 0};
  std::string extra;
  if (is_large(bytes)) {
    append_number(extra, kZip64Extra);
    append_number(extra, uint16_t{16});
    append_number(extra, bytes);
    append_number(extra, bytes);
  }
  // The padding is a field of its own, of at least its own four bytes.
  const uint64_t data = record.header + kLocalBytes + record.name.size() + extra.size() + 4;
  const uint64_t padding = (alignment - data % alignment) % alignment;
  append_number(extra, kPaddingExtra);
  append_number(extra, static_cast<uint16_t>(padding));
  extra.append(padding, '\0');

  std::string header = "PK\x03\x04";
  append_number(header, is_large(bytes) ? kVersion64 : kVersion);
  append_number(header, kFlags);
  append_number(header, uint16_t{0});     // stored
  append_number(header, uint16_t{0});     // time
  append_number(header, uint16_t{0x21});  // date: 1980-01-01
  append_number(header, uint32_t{0});     // the checksum follows the data
  put_32(header, bytes);
  put_32(header, bytes);
  append_number(header, static_cast<uint16_t>(record.name.size()));
  append_number(header, static_cast<uint16_t>(extra.size()));
  file_.write(header + record.name + extra);
  missing_ = bytes;
  records_.push_back(std::move(record));
}

void ZipWriter::write(std::span<const std::byte> bytes) {
  require(bytes.size() <= missing_, "[zip] record '{}': expected {} more bytes, found {}",
          records_.back().name, missing_, bytes.size());
  missing_ -= bytes.size();
  while (!bytes.empty()) {
    const auto piece = bytes.first(std::min(bytes.size(), kPieceBytes));
    records_.back().crc32 = crc32(piece, records_.back().crc32);
    file_.write(piece);
    bytes = bytes.subspan(piece.size());
  }
}

void ZipWriter::end() {
  Record& record = records_.back();
  require(missing_ == 0, "[zip] record '{}': expected {} more bytes, found its end", record.name, missing_);
  std::string descriptor = "PK\x07\x08";
  append_number(descriptor, record.crc32);
  if (is_large(record.bytes)) {
    append_number(descriptor, record.bytes);
    append_number(descriptor, record.bytes);
  } else {
    put_32(descriptor, record.bytes);
    put_32(descriptor, record.bytes);
  }
  file_.write(descriptor);
  crc32_of_all_ = crc32(std::as_bytes(std::span(&record.crc32, 1)), crc32_of_all_);
}

void ZipWriter::add(std::string name, std::string_view text, uint64_t alignment) {
  begin(std::move(name), text.size(), alignment);
  write(std::as_bytes(std::span(text)));
  end();
}

void ZipWriter::finish() {
  const uint64_t begin = file_.size();
  for (const Record& record : records_) {
    std::string extra;
    if (is_large(record.bytes)) {
      append_number(extra, record.bytes);
      append_number(extra, record.bytes);
    }
    if (is_large(record.header)) append_number(extra, record.header);
    std::string header = "PK\x01\x02";
    const uint16_t version = extra.empty() ? kVersion : kVersion64;
    append_number(header, version);  // made by
    append_number(header, version);
    append_number(header, kFlags);
    append_number(header, uint16_t{0});
    append_number(header, uint16_t{0});
    append_number(header, uint16_t{0x21});
    append_number(header, record.crc32);
    put_32(header, record.bytes);
    put_32(header, record.bytes);
    append_number(header, static_cast<uint16_t>(record.name.size()));
    append_number(header, static_cast<uint16_t>(extra.empty() ? 0 : extra.size() + 4));
    append_number(header, uint16_t{0});  // comment
    append_number(header, uint16_t{0});  // disk
    append_number(header, uint16_t{0});  // attributes
    append_number(header, uint32_t{0});
    put_32(header, record.header);
    header += record.name;
    if (!extra.empty()) {
      append_number(header, kZip64Extra);
      append_number(header, static_cast<uint16_t>(extra.size()));
      header += extra;
    }
    file_.write(header);
  }
  const uint64_t end = file_.size();
  const uint64_t bytes = end - begin;
  const bool is_64 = is_large(begin) || is_large(bytes) || records_.size() >= UINT16_MAX;
  if (is_64) {
    std::string trailer = "PK\x06\x06";
    append_number(trailer, uint64_t{44});  // bytes that follow
    append_number(trailer, kVersion64);
    append_number(trailer, kVersion64);
    append_number(trailer, uint32_t{0});
    append_number(trailer, uint32_t{0});
    append_number(trailer, uint64_t{records_.size()});
    append_number(trailer, uint64_t{records_.size()});
    append_number(trailer, bytes);
    append_number(trailer, begin);
    trailer += "PK\x06\x07";
    append_number(trailer, uint32_t{0});
    append_number(trailer, end);
    append_number(trailer, uint32_t{1});
    file_.write(trailer);
  }
  const auto count = static_cast<uint16_t>(std::min<uint64_t>(records_.size(), UINT16_MAX));
  std::string trailer = "PK\x05\x06";
  append_number(trailer, uint32_t{0});
  append_number(trailer, count);
  append_number(trailer, count);
  put_32(trailer, is_64 ? UINT32_MAX : bytes);
  put_32(trailer, is_64 ? UINT32_MAX : begin);
  append_number(trailer, uint16_t{0});
  file_.write(trailer);
  file_.commit();
}

}  // namespace qkv
