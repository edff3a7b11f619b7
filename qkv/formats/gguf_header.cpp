#include "qkv/formats/gguf_header.h"

#include <algorithm>
#include <numeric>
#include <unordered_set>

#include "qkv/core/error.h"
#include "qkv/formats/byte_reader.h"
#include "qkv/formats/content.h"
#include "qkv/formats/typed_values.h"

namespace qkv {
namespace {

// A length, a name of one byte, the number of dimensions (it may be 0), the type, the offset.
constexpr uint64_t kSmallestTensorBytes = 8 + 1 + 4 + 4 + 8;
// Padding of more than this is no use and would make a small header fill a disk.
constexpr uint64_t kLargestWrittenAlignment = uint64_t{1} << 20;

std::string supported_types() {
  std::string list;
  for (int i = 0; i < kDTypeCount; ++i) {
    const DTypeTraits& row = traits(static_cast<DType>(i));
    if (row.gguf >= 0) list += fmt::format("{}{}", list.empty() ? "" : ", ", row.name);
  }
  return list;
}

uint32_t read_version(ByteReader& reader) {
  const auto version = reader.number<uint32_t>("version");
  const uint32_t swapped = __builtin_bswap32(version);
  if (version > 3 && swapped >= 1 && swapped <= 3) {
    fail("{}: expected a little-endian file, found a big-endian one of version {}", reader.where(), swapped);
  }
  require(version == 2 || version == 3, "{}: version: expected 2 or 3, found {}", reader.where(), version);
  return version;
}

using Item = GgufRecords::Item;

class TensorReader {
 public:
  explicit TensorReader(ByteReader& reader) : reader_(reader) {}

  Item read(uint64_t number) {
    const std::string numbered = fmt::format("tensor {}", number);
    reader_.set_subject(numbered);
    Item item;
    item.entry.name = reader_.sized_text("name");
    require(!item.entry.name.empty(), "{}: {}: expected a name, found an empty one", reader_.where(),
            numbered);
    here_ = fmt::format("tensor '{}'", shown(item.entry.name));
    reader_.set_subject(here_);
    item.entry.shape = read_shape();
    item.entry.type = read_type();
    try {
      item.entry.bytes = tensor_bytes(item.entry.type, item.entry.shape);
    } catch (const Error& error) {
      fail("{}: {}: {}", reader_.where(), here_, error.what());
    }
    item.offset = reader_.number<uint64_t>("offset");
    reader_.set_subject("");
    return item;
  }

 private:
  Shape read_shape() {
    const auto rank = reader_.number<uint32_t>("number of dimensions");
    if (rank > Shape::kMaximumRank) {
      fail("{}: {}: expected at most {} dimensions, found {}", reader_.where(), here_,
           int{Shape::kMaximumRank}, rank);
    }
    std::vector<int64_t> dims(rank);
    for (uint32_t i = 0; i < rank; ++i) {
      const auto dim = reader_.number<uint64_t>("dimensions");
      if (dim >= uint64_t{1} << 62) {
        fail("{}: {}: expected dimensions below 2^62, found {}", reader_.where(), here_, dim);
      }
      dims[rank - 1 - i] = static_cast<int64_t>(dim);
    }
    try {
      return Shape(dims);
    } catch (const Error& error) {
      fail("{}: {}: {}", reader_.where(), here_, error.what());
    }
  }

  DType read_type() {
    const auto id = reader_.number<uint32_t>("type");
    const auto type = id <= INT32_MAX ? dtype_from_gguf(static_cast<int>(id)) : std::nullopt;
    if (!type) {
      fail("{}: {}: type: expected one of {}; found the unknown id {}", reader_.where(), here_,
           supported_types(), id);
    }
    return *type;
  }

  ByteReader& reader_;
  std::string here_;
};

// Every tensor within the file and none on another's bytes; items are sorted by offset.
void require_disjoint(const std::vector<Item>& items, uint64_t data_bytes, std::string_view where) {
  uint64_t end = 0;
  const Item* before = nullptr;
  for (const Item& item : items) {
    const auto here = [&] { return fmt::format("[gguf] {}: tensor '{}'", where, shown(item.entry.name)); };
    if (item.offset > data_bytes || item.entry.bytes > data_bytes - item.offset) {
      fail("{}: expected its data within the file's {} bytes of data, found {} bytes at offset {}", here(),
           data_bytes, item.entry.bytes, item.offset);
    }
    if (item.entry.bytes == 0) continue;
    if (item.offset < end) {
      fail("{}: offset: expected {} or more, found {}, which overlaps tensor '{}'", here(), end, item.offset,
           shown(before->entry.name));
    }
    end = item.offset + item.entry.bytes;
    before = &item;
  }
}

}  // namespace

bool looks_like_gguf(std::span<const std::byte> file) {
  return file.size() >= kGgufMagic.size() &&
         std::memcmp(file.data(), kGgufMagic.data(), kGgufMagic.size()) == 0;
}

uint64_t gguf_alignment(const Metadata& metadata, std::string_view where) {
  const MetadataValue* value = metadata.find(kGgufAlignmentKey);
  if (value == nullptr) return kGgufDefaultAlignment;
  const auto* number = std::get_if<uint32_t>(value);
  if (number == nullptr) {
    fail("[gguf] {}: key '{}': expected a u32, found {}", where, kGgufAlignmentKey, exact_type_name(*value));
  }
  require(std::has_single_bit(*number), "[gguf] {}: key '{}': expected a power of two, found {}", where,
          kGgufAlignmentKey, *number);
  return *number;
}

GgufRecords parse_gguf_records(std::span<const std::byte> file, std::string_view where) {
  if (!looks_like_gguf(file)) {
    const std::string_view kind = content_by_signature(file);
    fail("[gguf] {}: expected a GGUF file, found {}", where,
         kind.empty() ? "a file that begins otherwise" : kind);
  }
  ByteReader reader(file, fmt::format("[gguf] {}", where));
  reader.take(kGgufMagic.size(), "magic");
  GgufRecords records;
  records.version = read_version(reader);
  const uint64_t tensors = reader.count(1, "number of tensors");
  const uint64_t pairs = reader.count(kSmallestKeyValueBytes, "number of key/value pairs");
  records.metadata = Metadata(reader.where());
  read_key_values(reader, pairs, records.metadata);
  records.alignment = gguf_alignment(records.metadata, where);

  require(tensors <= reader.remaining() / kSmallestTensorBytes,
          "[gguf] {}: number of tensors: expected at most {}, as {} bytes follow the metadata; found {}",
          where, reader.remaining() / kSmallestTensorBytes, reader.remaining(), tensors);
  std::unordered_set<std::string> names;
  TensorReader tensor_reader(reader);
  for (uint64_t i = 0; i < tensors; ++i) {
    records.items.push_back(tensor_reader.read(i));
    if (!names.insert(records.items.back().entry.name).second) {
      fail("[gguf] {}: tensor '{}': expected once, found twice", where,
           shown(records.items.back().entry.name));
    }
  }
  records.header_bytes = reader.position();
  records.data_begin = std::min<uint64_t>(aligned_up(reader.position(), records.alignment), file.size());
  return records;
}

GgufHeader parse_gguf_header(std::span<const std::byte> file, std::string_view where) {
  GgufRecords records = parse_gguf_records(file, where);
  GgufHeader header;
  header.version = records.version;
  header.alignment = records.alignment;
  header.metadata = std::move(records.metadata);
  std::vector<Item>& items = records.items;
  for (const Item& item : items) {
    if (item.offset % header.alignment != 0) {
      fail("[gguf] {}: tensor '{}': offset: expected a multiple of {}, found {}", where,
           shown(item.entry.name), header.alignment, item.offset);
    }
  }
  std::stable_sort(items.begin(), items.end(),
                   [](const Item& a, const Item& b) { return a.offset < b.offset; });
  require_disjoint(items, file.size() - records.data_begin, where);
  header.entries.reserve(items.size());
  for (Item& item : items) {
    header.offsets.push_back(records.data_begin + item.offset);
    header.entries.push_back(std::move(item.entry));
  }
  return header;
}

std::string make_gguf_header(const std::vector<TensorEntry>& entries, const Metadata& metadata,
                             std::string_view where) {
  const uint64_t alignment = gguf_alignment(metadata, where);
  require(alignment <= kLargestWrittenAlignment, "[gguf] {}: key '{}': expected at most {}, found {}", where,
          kGgufAlignmentKey, kLargestWrittenAlignment, alignment);
  std::string header(kGgufMagic);
  append_number<uint32_t>(header, 3);
  append_number<uint64_t>(header, entries.size());
  append_number<uint64_t>(header, metadata.values().size());
  append_key_values(header, metadata, fmt::format("[gguf] {}", where));
  std::unordered_set<std::string_view> names;
  uint64_t offset = 0;
  for (const auto& entry : entries) {
    const auto here = [&] { return fmt::format("[gguf] {}: tensor '{}'", where, shown(entry.name)); };
    if (entry.name.empty() || entry.name.size() > kGgufLongestName) {
      fail("{}: expected a name of 1 to {} bytes, found {}", here(), kGgufLongestName, entry.name.size());
    }
    if (!names.insert(entry.name).second) fail("{}: expected once, found twice", here());
    const int type = traits(entry.type).gguf;
    if (type < 0)
      fail("{}: expected one of the format's types, {}; found {}", here(), supported_types(),
           name(entry.type));
    append_sized_text(header, entry.name);
    append_number<uint32_t>(header, static_cast<uint32_t>(entry.shape.rank()));
    for (int i = entry.shape.rank() - 1; i >= 0; --i) {
      append_number<uint64_t>(header, static_cast<uint64_t>(entry.shape[i]));
    }
    append_number<uint32_t>(header, static_cast<uint32_t>(type));
    append_number<uint64_t>(header, offset);
    const uint64_t padded = aligned_up(entry.bytes, alignment);
    if (padded < entry.bytes || __builtin_add_overflow(offset, padded, &offset)) {
      fail("{}: the file would pass 2^64 bytes", here());
    }
  }
  if (!entries.empty()) header.append(aligned_up(header.size(), alignment) - header.size(), '\0');
  return header;
}

}  // namespace qkv
