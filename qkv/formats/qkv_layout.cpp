#include "qkv/formats/qkv_layout.h"

#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <unordered_set>

#include "qkv/core/error.h"
#include "qkv/core/parallel.h"
#include "qkv/formats/byte_reader.h"
#include "qkv/formats/content.h"
#include "qkv/formats/qkv_codecs.h"
#include "qkv/formats/typed_values.h"

namespace qkv {
namespace {

// What the checksums of prologue and trailer do not cover: themselves, and the trailer's magic after it.
constexpr uint64_t kPrologueSummed = 56;
constexpr uint64_t kTrailerSummed = 48;

// The smallest records, to bound their counts.
constexpr uint64_t kSmallestCodecBytes = 8 + 1 + 8;
constexpr uint64_t kSmallestRecordBytes = 8 + 1 + 8 + 1 + 4 + 8 + 8 + 8;
constexpr uint64_t kChunkBytes = 4 + 8 + 8;

void require_checksum(std::span<const std::byte> bytes, uint64_t expected, std::string_view part,
                      uint64_t offset, std::string_view where) {
  const uint64_t found = qkv_checksum(bytes);
  require(found == expected,
          "[qkv] {}: the {} at offset {} is damaged: expected the checksum {:016x}, found {:016x}", where,
          part, offset, expected, found);
}

uint32_t parse_prologue(std::span<const std::byte> file, std::string_view where) {
  ByteReader reader(file.first(kQkvPrologueBytes), fmt::format("[qkv] {}: prologue", where));
  reader.take(kQkvMagic.size(), "magic");
  const auto version = reader.number<uint32_t>("version");
  const auto alignment = reader.number<uint32_t>("alignment");
  const auto features = reader.number<uint64_t>("features");
  const auto reserved = reader.take(kPrologueSummed - reader.position(), "reserved");
  const auto checksum = reader.number<uint64_t>("checksum");
  require(version == kQkvVersion, "[qkv] {}: version: expected {}, found {}", where, kQkvVersion, version);
  require_checksum(file.first(kPrologueSummed), checksum, "prologue", 0, where);
  require(features == 0, "[qkv] {}: expected no features beyond those of version {}, found the bits {:x}",
          where, kQkvVersion, features);
  require(std::all_of(reserved.begin(), reserved.end(), [](std::byte byte) { return byte == std::byte{0}; }),
          "[qkv] {}: prologue: expected zeros in the reserved bytes, found others", where);
  require(std::has_single_bit(alignment) && alignment >= 8 && alignment <= kQkvLargestAlignment,
          "[qkv] {}: alignment: expected a power of two from 8 to {}, found {}", where, kQkvLargestAlignment,
          alignment);
  return alignment;
}

struct Extent {
  uint64_t offset;
  uint64_t bytes;
};

// Where the directory is; its checksum holds.
Extent parse_trailer(std::span<const std::byte> file, std::string_view where) {
  const uint64_t begin = file.size() - kQkvTrailerBytes;
  const auto trailer = file.subspan(begin);
  if (std::memcmp(trailer.data() + kQkvTrailerBytes - kQkvEndMagic.size(), kQkvEndMagic.data(),
                  kQkvEndMagic.size()) != 0) {
    fail("[qkv] {}: expected the end mark in its last {} bytes, found others: the file is cut off or damaged",
         where, kQkvEndMagic.size());
  }
  ByteReader reader(trailer, fmt::format("[qkv] {}: trailer", where));
  const auto offset = reader.number<uint64_t>("directory offset");
  const auto bytes = reader.number<uint64_t>("directory size");
  const auto directory_checksum = reader.number<uint64_t>("directory checksum");
  const auto file_bytes = reader.number<uint64_t>("file size");
  const auto reserved = reader.take(kTrailerSummed - reader.position(), "reserved");
  require_checksum(trailer.first(kTrailerSummed), reader.number<uint64_t>("checksum"), "trailer", begin,
                   where);
  require(std::all_of(reserved.begin(), reserved.end(), [](std::byte byte) { return byte == std::byte{0}; }),
          "[qkv] {}: trailer: expected zeros in the reserved bytes, found others", where);
  require(file_bytes == file.size(), "[qkv] {}: expected {} bytes by the trailer, found {}", where,
          file_bytes, file.size());
  require(offset >= kQkvPrologueBytes && offset <= begin && bytes == begin - offset,
          "[qkv] {}: trailer: expected a directory that ends at offset {}, found {} bytes at offset {}",
          where, begin, bytes, offset);
  require_checksum(file.subspan(offset, bytes), directory_checksum, "directory", offset, where);
  return {offset, bytes};
}

class DirectoryReader {
 public:
  DirectoryReader(std::span<const std::byte> bytes, uint64_t offset, uint32_t alignment,
                  std::string_view where)
      : reader_(bytes, fmt::format("[qkv] {}: directory", where)), position_(kQkvPrologueBytes) {
    directory_.offset = offset;
    directory_.alignment = alignment;
  }

  QkvDirectory read(std::string_view where) {
    read_codecs();
    directory_.metadata = Metadata(fmt::format("[qkv] {}", where));
    read_key_values(reader_, reader_.count(kSmallestKeyValueBytes, "number of key/value pairs"),
                    directory_.metadata);
    read_records("file", directory_.files);
    for (const QkvRecord& file : directory_.files) {
      const TensorEntry& entry = file.entry;
      require(entry.type == DType::u8 && entry.shape.rank() == 1 && is_plain_file_name(entry.name),
              "{}: file '{}': expected a plain file name and u8 (n), found {} {}", reader_.where(),
              shown(entry.name), name(entry.type), entry.shape.str());
    }
    read_records("tensor", directory_.tensors);
    require(reader_.remaining() == 0, "{}: expected its end after the last tensor, found {} bytes more",
            reader_.where(), reader_.remaining());
    return std::move(directory_);
  }

 private:
  void read_codecs() {
    const uint64_t count = reader_.count(kSmallestCodecBytes, "number of codecs");
    for (uint64_t i = 0; i < count; ++i) {
      QkvCodec codec;
      codec.name = reader_.sized_text("codec name");
      codec.parameters = reader_.sized_text("codec parameters");
      require(!codec.name.empty(), "{}: codec {}: expected a name, found an empty one", reader_.where(), i);
      codecs_.push_back(find_chunk_codec(codec.name));
      directory_.codecs.push_back(std::move(codec));
    }
  }

  void read_records(std::string_view kind, std::vector<QkvRecord>& records) {
    const uint64_t count = reader_.count(kSmallestRecordBytes, "number of records");
    std::unordered_set<std::string> names;
    for (uint64_t i = 0; i < count; ++i) {
      const std::string numbered = fmt::format("{} {}", kind, i);
      reader_.set_subject(numbered);
      std::string name(reader_.sized_text("name"));
      require(!name.empty(), "{}: {}: expected a name, found an empty one", reader_.where(), numbered);
      here_ = fmt::format("{} '{}'", kind, shown(name));
      reader_.set_subject(here_);
      require(names.insert(name).second, "{}: {}: expected once, found twice", reader_.where(), here_);
      records.push_back(read_record(std::move(name)));
      reader_.set_subject("");
    }
  }

  QkvRecord read_record(std::string name) {
    QkvRecord record;
    TensorEntry& entry = record.entry;
    entry.name = std::move(name);
    const std::string_view type = reader_.sized_text("type");
    const auto known = dtype_from_name(type);
    require(known && qkv::name(*known) == type, "{}: {}: expected the name of a type, found '{}'",
            reader_.where(), here_, shown(type));
    entry.type = *known;
    entry.shape = read_shape();
    uint64_t row = 0;
    try {
      entry.bytes = tensor_bytes(entry.type, entry.shape);
      row = tensor_bytes(entry.type, Shape{entry.shape.cols()});
    } catch (const Error& error) {
      fail("{}: {}: {}", reader_.where(), here_, error.what());
    }
    record.row_bytes = reader_.number<uint64_t>("bytes of a row");
    uint64_t stored = 0;
    require(
        record.row_bytes >= row &&
            !__builtin_mul_overflow(static_cast<uint64_t>(entry.shape.rows()), record.row_bytes, &stored),
        "{}: {}: expected rows of {} bytes or more and of less than 2^64 together, found rows of {} bytes",
        reader_.where(), here_, row, record.row_bytes);
    record.chunk_bytes = reader_.number<uint64_t>("bytes of a chunk");
    require(record.chunk_bytes > 0, "{}: {}: expected chunks of at least one byte, found 0", reader_.where(),
            here_);
    record.offset = reader_.number<uint64_t>("offset");
    require(record.offset % directory_.alignment == 0 && record.offset >= position_ &&
                record.offset <= directory_.offset,
            "{}: {}: offset: expected a multiple of {} from {} to {}, found {}", reader_.where(), here_,
            directory_.alignment, position_, directory_.offset, record.offset);
    read_chunks(record, stored);
    return record;
  }

  Shape read_shape() {
    const auto rank = reader_.number<uint32_t>("number of dimensions");
    require(rank <= Shape::kMaximumRank, "{}: {}: expected at most {} dimensions, found {}", reader_.where(),
            here_, int{Shape::kMaximumRank}, rank);
    std::vector<int64_t> dims;
    for (uint32_t i = 0; i < rank; ++i) {
      const auto dim = reader_.number<uint64_t>("dimensions");
      require(dim < uint64_t{1} << 62, "{}: {}: expected dimensions below 2^62, found {}", reader_.where(),
              here_, dim);
      dims.push_back(static_cast<int64_t>(dim));
    }
    try {
      return Shape(dims);
    } catch (const Error& error) {
      fail("{}: {}: {}", reader_.where(), here_, error.what());
    }
  }

  void read_chunks(QkvRecord& record, uint64_t stored) {
    const uint64_t count = stored / record.chunk_bytes + (stored % record.chunk_bytes != 0 ? 1 : 0);
    if (count > reader_.remaining() / kChunkBytes) {
      fail("{}: {}: expected at most {} chunks, as {} bytes follow; found {}", reader_.where(), here_,
           reader_.remaining() / kChunkBytes, reader_.remaining(), count);
    }
    record.chunks.reserve(count);
    uint64_t offset = record.offset;
    for (uint64_t i = 0; i < count; ++i) {
      QkvChunk chunk;
      chunk.codec = reader_.number<uint32_t>("chunk codec");
      chunk.encoded_bytes = reader_.number<uint64_t>("chunk size");
      chunk.checksum = reader_.number<uint64_t>("chunk checksum");
      chunk.offset = offset;
      const auto subject = [&] { return fmt::format("{}: {}: chunk {}", reader_.where(), here_, i); };
      if (chunk.codec >= directory_.codecs.size()) {
        fail("{}: expected one of {} codecs, found number {}", subject(), directory_.codecs.size(),
             chunk.codec);
      }
      if (chunk.encoded_bytes > directory_.offset || offset > directory_.offset - chunk.encoded_bytes) {
        fail("{}: expected its data before the directory at offset {}, found {} bytes at offset {}",
             subject(), directory_.offset, chunk.encoded_bytes, offset);
      }
      const uint64_t raw = std::min(record.chunk_bytes, stored - i * record.chunk_bytes);
      if (const ChunkCodec* codec = codecs_[chunk.codec]; codec != nullptr) {
        if (codec->name == kRawCodec && chunk.encoded_bytes != raw)
          fail("{}: expected {} bytes, found {}", subject(), raw, chunk.encoded_bytes);
        if (chunk.encoded_bytes < raw / codec->largest_expansion)
          fail("{}: expected at least {} bytes, as the codec '{}' makes at most {} of one, found {}",
               subject(), raw / codec->largest_expansion, codec->name, codec->largest_expansion,
               chunk.encoded_bytes);
      }
      offset += chunk.encoded_bytes;
      record.chunks.push_back(chunk);
    }
    position_ = offset;
  }

  ByteReader reader_;
  uint64_t position_;  // where the data of the record before end
  std::string here_;
  std::vector<const ChunkCodec*> codecs_;  // of the directory's; null: unknown
  QkvDirectory directory_;
};

void append_record(std::string& out, const QkvRecord& record) {
  const TensorEntry& entry = record.entry;
  append_sized_text(out, entry.name);
  append_sized_text(out, name(entry.type));
  append_number<uint32_t>(out, static_cast<uint32_t>(entry.shape.rank()));
  for (const int64_t dim : entry.shape.dims()) append_number<uint64_t>(out, static_cast<uint64_t>(dim));
  append_number(out, record.row_bytes);
  append_number(out, record.chunk_bytes);
  append_number(out, record.offset);
  for (const QkvChunk& chunk : record.chunks) {
    append_number(out, chunk.codec);
    append_number(out, chunk.encoded_bytes);
    append_number(out, chunk.checksum);
  }
}

void append_records(std::string& out, const std::vector<QkvRecord>& records, std::string_view kind,
                    std::string_view where) {
  append_number<uint64_t>(out, records.size());
  std::unordered_set<std::string_view> names;
  for (const QkvRecord& record : records) {
    require(!record.entry.name.empty(), "[qkv] {}: {}: expected a name, found an empty one", where, kind);
    require(names.insert(record.entry.name).second, "[qkv] {}: {} '{}': expected once, found twice", where,
            kind, shown(record.entry.name));
    append_record(out, record);
  }
}

}  // namespace

uint64_t qkv_checksum(std::span<const std::byte> bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

bool looks_like_qkv(std::span<const std::byte> file) {
  return file.size() >= kQkvMagic.size() && std::memcmp(file.data(), kQkvMagic.data(), kQkvMagic.size()) == 0;
}

QkvDirectory parse_qkv(std::span<const std::byte> file, std::string_view where) {
  if (!looks_like_qkv(file)) {
    const std::string_view kind = content_by_signature(file);
    fail("[qkv] {}: expected a .qkv file, found {}", where,
         kind.empty() ? "a file that begins otherwise" : kind);
  }
  require(file.size() >= kQkvPrologueBytes + kQkvTrailerBytes,
          "[qkv] {}: expected at least {} bytes, found {}", where, kQkvPrologueBytes + kQkvTrailerBytes,
          file.size());
  const uint32_t alignment = parse_prologue(file, where);
  const Extent directory = parse_trailer(file, where);
  return DirectoryReader(file.subspan(directory.offset, directory.bytes), directory.offset, alignment, where)
      .read(where);
}

std::string make_qkv_prologue(uint32_t alignment) {
  std::string out(kQkvMagic);
  append_number(out, kQkvVersion);
  append_number(out, alignment);
  out.resize(kPrologueSummed, '\0');
  append_number(out, qkv_checksum(out));
  return out;
}

std::string make_qkv_directory(const QkvDirectory& directory, std::string_view where) {
  std::string out;
  append_number<uint64_t>(out, directory.codecs.size());
  for (const QkvCodec& codec : directory.codecs) {
    append_sized_text(out, codec.name);
    append_sized_text(out, codec.parameters);
  }
  append_number<uint64_t>(out, directory.metadata.values().size());
  append_key_values(out, directory.metadata, fmt::format("[qkv] {}", where));
  append_records(out, directory.files, "file", where);
  append_records(out, directory.tensors, "tensor", where);
  return out;
}

std::string make_qkv_trailer(uint64_t directory_offset, std::string_view directory) {
  std::string out;
  append_number(out, directory_offset);
  append_number<uint64_t>(out, directory.size());
  append_number(out, qkv_checksum(directory));
  append_number<uint64_t>(out, directory_offset + directory.size() + kQkvTrailerBytes);
  out.resize(kTrailerSummed, '\0');
  append_number(out, qkv_checksum(out));
  return out + std::string(kQkvEndMagic);
}

bool is_plain(const QkvDirectory& directory, const QkvRecord& record) {
  return record.stored_bytes() == record.entry.bytes &&
         std::all_of(record.chunks.begin(), record.chunks.end(),
                     [&](const QkvChunk& chunk) { return directory.codecs[chunk.codec].name == kRawCodec; });
}

std::string chunk_damage(std::span<const std::byte> file, const QkvChunk& chunk, size_t number) {
  const uint64_t found = qkv_checksum(file.subspan(chunk.offset, chunk.encoded_bytes));
  if (found == chunk.checksum) return "";
  return fmt::format("chunk {} at offset {}: expected the checksum {:016x} of its {} bytes, found {:016x}",
                     number, chunk.offset, chunk.checksum, chunk.encoded_bytes, found);
}

Tensor decode_qkv_record(std::span<const std::byte> file, const QkvDirectory& directory,
                         const QkvRecord& record, std::string_view subject, std::string_view where) {
  std::vector<const ChunkCodec*> codecs;
  for (const QkvCodec& codec : directory.codecs) codecs.push_back(find_chunk_codec(codec.name));
  for (const QkvChunk& chunk : record.chunks) {
    if (codecs[chunk.codec] != nullptr) continue;
    fail("[qkv] {}: {}: expected a codec that this program knows, found '{}'", where, subject,
         shown(directory.codecs[chunk.codec].name));
  }
  Tensor tensor = Tensor::empty(record.entry.shape, record.entry.type);
  const std::span<std::byte> out(tensor.raw(), record.entry.bytes);
  const uint64_t rows = static_cast<uint64_t>(record.entry.shape.rows());
  const uint64_t row = rows == 0 ? 0 : record.entry.bytes / rows;
  const bool padded = record.row_bytes != row;
  parallel_items(static_cast<int64_t>(record.chunks.size()), [&](int64_t item, int) {
    const QkvChunk& chunk = record.chunks[static_cast<size_t>(item)];
    const std::string& parameters = directory.codecs[chunk.codec].parameters;
    const uint64_t begin = static_cast<uint64_t>(item) * record.chunk_bytes;
    const uint64_t size = std::min(record.chunk_bytes, record.stored_bytes() - begin);
    const std::string damage = chunk_damage(file, chunk, static_cast<size_t>(item));
    require(damage.empty(), "[qkv] {}: {}: {}", where, subject, damage);
    std::vector<std::byte> stored(padded ? size : 0);
    const std::span<std::byte> raw = padded ? std::span(stored) : out.subspan(begin, size);
    try {
      codecs[chunk.codec]->decode(file.subspan(chunk.offset, chunk.encoded_bytes),
                                  std::as_bytes(std::span(parameters)), raw);
    } catch (const Error& error) {
      fail("[qkv] {}: {}: chunk {} at offset {}: {}", where, subject, item, chunk.offset, error.what());
    }
    if (!padded || row == 0) return;
    // The parts of rows that lie in this chunk, which may begin and end within one.
    for (uint64_t position = begin; position < begin + size;) {
      const uint64_t within = position % record.row_bytes;
      const uint64_t step = std::min(record.row_bytes - within, begin + size - position);
      if (within < row) {
        const uint64_t used_bytes = std::min(step, row - within);
        std::memcpy(out.data() + position / record.row_bytes * row + within, raw.data() + (position - begin),
                    used_bytes);
      }
      position += step;
    }
  });
  return tensor;
}

}  // namespace qkv
