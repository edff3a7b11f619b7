#include "qkv/formats/zip.h"

#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <unordered_set>

#include "qkv/core/error.h"
#include "qkv/formats/content.h"

namespace qkv {
namespace {

constexpr uint32_t kLocalHeader = 0x04034b50;
constexpr uint32_t kDirectoryHeader = 0x02014b50;
constexpr uint32_t kEnd = 0x06054b50;
constexpr uint32_t kEnd64 = 0x06064b50;
constexpr uint32_t kEnd64Locator = 0x07064b50;
constexpr uint64_t kLocalBytes = 30;
constexpr uint64_t kDirectoryBytes = 46;
constexpr uint64_t kEndBytes = 22;
constexpr uint64_t kEnd64Bytes = 56;
constexpr uint64_t kLocatorBytes = 20;
constexpr uint64_t kLongestComment = 65535;
constexpr uint16_t kZip64Extra = 1;
constexpr uint16_t kStored = 0;
constexpr uint16_t kDeflated = 8;
// No deflated stream unfolds to more than 1032 times its size (zlib's "Maximum Compression Factor").
constexpr uint64_t kMaximumRatio = 1032;

// A number at a place that the caller has checked to be inside.
template <typename T>
T at(std::span<const std::byte> bytes, uint64_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

bool fits(std::span<const std::byte> file, uint64_t offset, uint64_t size) {
  return offset <= file.size() && size <= file.size() - offset;
}

struct Directory {
  uint64_t begin = 0;
  uint64_t bytes = 0;
};

std::optional<uint64_t> find_end(std::span<const std::byte> file) {
  if (file.size() < kEndBytes) return std::nullopt;
  const uint64_t last = file.size() - kEndBytes;
  const uint64_t first = last - std::min(last, kLongestComment);
  for (uint64_t offset = last + 1; offset-- > first;) {
    if (at<uint32_t>(file, offset) == kEnd && at<uint16_t>(file, offset + 20) <= last - offset) return offset;
  }
  return std::nullopt;
}

Directory find_directory(std::span<const std::byte> file, std::string_view where) {
  const auto end = find_end(file);
  require(end.has_value(),
          "{}: expected the directory of a ZIP archive at the end, found none (is the file cut off?)", where);
  Directory directory = {at<uint32_t>(file, *end + 16), at<uint32_t>(file, *end + 12)};
  const bool is_64 = directory.begin == UINT32_MAX || directory.bytes == UINT32_MAX ||
                     at<uint16_t>(file, *end + 10) == UINT16_MAX;
  if (is_64) {
    require(*end >= kLocatorBytes && at<uint32_t>(file, *end - kLocatorBytes) == kEnd64Locator,
            "{}: expected the locator of a ZIP64 directory, found none", where);
    const auto end64 = at<uint64_t>(file, *end - kLocatorBytes + 8);
    require(fits(file, end64, kEnd64Bytes) && at<uint32_t>(file, end64) == kEnd64,
            "{}: expected a ZIP64 directory at offset {}, found none", where, end64);
    directory = {at<uint64_t>(file, end64 + 48), at<uint64_t>(file, end64 + 40)};
  }
  require(fits(file, directory.begin, directory.bytes),
          "{}: ZIP directory: expected within the file's {} bytes, found offset {} + {} bytes", where,
          file.size(), directory.begin, directory.bytes);
  return directory;
}

// Replaces those of the three numbers that do not fit into 32 bits by their 64-bit values.
void read_zip64_extra(std::span<const std::byte> extra, ZipRecord& record, uint64_t& header,
                      std::string_view here) {
  const auto wanted = [](uint64_t value) { return value == UINT32_MAX; };
  if (!wanted(record.bytes) && !wanted(record.stored_bytes) && !wanted(header)) return;
  while (extra.size() >= 4) {
    const auto id = at<uint16_t>(extra, 0);
    const auto size = at<uint16_t>(extra, 2);
    extra = extra.subspan(4);
    if (size > extra.size()) break;
    if (id != kZip64Extra) {
      extra = extra.subspan(size);
      continue;
    }
    auto values = extra.first(size);
    for (uint64_t* number : {&record.bytes, &record.stored_bytes, &header}) {
      if (!wanted(*number)) continue;
      require(values.size() >= 8, "{}: ZIP64 sizes: expected 8 more bytes, found {}", here, values.size());
      *number = at<uint64_t>(values, 0);
      values = values.subspan(8);
    }
    return;
  }
  fail("{}: expected ZIP64 sizes, found none", here);
}

void check(const ZipRecord& record, uint16_t method, uint16_t flags, std::string_view here) {
  require((flags & 1) == 0, "{}: expected plain data, found encrypted data", here);
  require(method == kStored || method == kDeflated, "{}: expected stored or deflated data, found method {}",
          here, method);
  if (method == kStored) {
    require(record.bytes == record.stored_bytes,
            "{}: expected as many stored bytes as the record has, {}, found {}", here, record.bytes,
            record.stored_bytes);
  } else {
    require(record.bytes / kMaximumRatio <= record.stored_bytes,
            "{}: expected no more bytes than {} deflated ones can hold, found {}", here, record.stored_bytes,
            record.bytes);
  }
}

}  // namespace

bool looks_like_zip(std::span<const std::byte> file) {
  return file.size() >= 4 && at<uint32_t>(file, 0) == kLocalHeader;
}

std::vector<ZipRecord> read_zip_directory(std::span<const std::byte> file, std::string_view where) {
  const Directory directory = find_directory(file, where);
  auto rest = file.subspan(directory.begin, directory.bytes);
  std::vector<ZipRecord> records;
  std::unordered_set<std::string> names;
  while (!rest.empty()) {
    require(rest.size() >= kDirectoryBytes && at<uint32_t>(rest, 0) == kDirectoryHeader,
            "{}: ZIP directory: expected record {}, found other bytes", where, records.size());
    const uint64_t name_bytes = at<uint16_t>(rest, 28);
    const uint64_t extra_bytes = at<uint16_t>(rest, 30);
    const uint64_t comment_bytes = at<uint16_t>(rest, 32);
    const uint64_t entry_bytes = kDirectoryBytes + name_bytes + extra_bytes + comment_bytes;
    require(entry_bytes <= rest.size(), "{}: ZIP directory: record {}: expected {} bytes, found {}", where,
            records.size(), entry_bytes, rest.size());
    ZipRecord record;
    record.name.assign(reinterpret_cast<const char*>(rest.data()) + kDirectoryBytes, name_bytes);
    record.crc32 = at<uint32_t>(rest, 16);
    record.stored_bytes = at<uint32_t>(rest, 20);
    record.bytes = at<uint32_t>(rest, 24);
    record.deflated = at<uint16_t>(rest, 10) == kDeflated;
    uint64_t header = at<uint32_t>(rest, 42);
    const std::string here = fmt::format("{}: record '{}'", where, shown(record.name));
    read_zip64_extra(rest.subspan(kDirectoryBytes + name_bytes, extra_bytes), record, header, here);
    check(record, at<uint16_t>(rest, 10), at<uint16_t>(rest, 8), here);
    require(fits(file, header, kLocalBytes) && at<uint32_t>(file, header) == kLocalHeader,
            "{}: expected its header at offset {}, found none", here, header);
    record.begin = header + kLocalBytes + at<uint16_t>(file, header + 26) + at<uint16_t>(file, header + 28);
    require(fits(file, record.begin, record.stored_bytes),
            "{}: expected within the file's {} bytes, found offset {} + {} bytes", here, file.size(),
            record.begin, record.stored_bytes);
    require(names.insert(record.name).second, "{}: expected once, found twice", here);
    records.push_back(std::move(record));
    rest = rest.subspan(entry_bytes);
  }
  return records;
}

std::span<const std::byte> stored_bytes(std::span<const std::byte> file, const ZipRecord& record) {
  return file.subspan(record.begin, record.stored_bytes);
}

void inflate_zip_record(std::span<const std::byte> file, const ZipRecord& record, std::span<std::byte> out,
                        std::string_view where) {
  // zlib counts in 32 bits: both sides go in pieces.
  constexpr size_t kPiece = size_t{1} << 30;
  auto in = stored_bytes(file, record);
  z_stream stream = {};
  require(inflateInit2(&stream, -MAX_WBITS) == Z_OK, "{}: record '{}': zlib cannot start", where,
          shown(record.name));
  std::byte nothing{};
  size_t written = 0;
  int status = Z_OK;
  while (status == Z_OK) {
    const size_t in_piece = std::min(in.size(), kPiece);
    const size_t out_piece = std::min(out.size() - written, kPiece);
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(in.data()));
    stream.avail_in = static_cast<uInt>(in_piece);
    stream.next_out = reinterpret_cast<Bytef*>(out_piece > 0 ? out.data() + written : &nothing);
    stream.avail_out = static_cast<uInt>(out_piece);
    status = inflate(&stream, Z_NO_FLUSH);
    in = in.subspan(in_piece - stream.avail_in);
    written += out_piece - stream.avail_out;
  }
  inflateEnd(&stream);
  require(status == Z_STREAM_END && written == out.size(),
          "{}: record '{}': expected deflated data of {} bytes, found other data", where, shown(record.name),
          out.size());
}

uint32_t crc32(std::span<const std::byte> bytes, uint32_t before) {
  return static_cast<uint32_t>(::crc32_z(before, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

}  // namespace qkv
