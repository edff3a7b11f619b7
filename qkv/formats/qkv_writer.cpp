#include <algorithm>
#include <bit>

#include "qkv/core/error.h"
#include "qkv/core/parallel.h"
#include "qkv/formats/byte_reader.h"
#include "qkv/formats/content.h"
#include "qkv/formats/qkv_codecs.h"
#include "qkv/formats/qkv_file.h"

namespace qkv {
namespace {

std::vector<TensorEntry> sized(std::vector<TensorEntry> entries, const std::string& path) {
  set_bytes_and_file(entries, "qkv", path);
  return entries;
}

uint64_t rounded_up(uint64_t value, uint64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// The largest number of whole rows in `limit` bytes; of whole blocks, where not even one row fits.
uint64_t chunk_size(uint64_t row_bytes, uint64_t block_bytes, uint64_t limit) {
  const uint64_t unit = row_bytes > 0 && row_bytes <= limit ? row_bytes : block_bytes;
  return std::max(limit / unit, uint64_t{1}) * unit;
}

// A record's data as they are stored: rows, each followed by zeros up to row_bytes, cut into chunks.
struct StoredRows {
  std::span<const std::byte> data;
  uint64_t row, row_bytes, chunk_bytes, bytes;

  uint64_t chunks() const { return (bytes + chunk_bytes - 1) / chunk_bytes; }
  // `padded` holds it where rows have padding.
  std::span<const std::byte> chunk(uint64_t number, std::string& padded) const {
    const uint64_t begin = number * chunk_bytes, size = std::min(chunk_bytes, bytes - begin);
    if (row_bytes == row) return data.subspan(begin, size);
    padded.clear();
    for (uint64_t position = begin; position < begin + size;) {
      const uint64_t within = position % row_bytes;
      const uint64_t step = std::min(row_bytes - within, begin + size - position);
      const uint64_t used = within < row ? std::min(step, row - within) : 0;
      const auto source = data.subspan(position / row_bytes * row + std::min(within, row), used);
      padded.append(reinterpret_cast<const char*>(source.data()), used);
      padded.append(step - used, '\0');
      position += step;
    }
    return std::as_bytes(std::span(padded.data(), padded.size()));
  }
};

Elements elements_of(DType type) {
  if (traits(type).block_length > 1) return Elements::bytes;
  return traits(type).block_bytes == 2   ? Elements::words16
         : traits(type).block_bytes == 4 ? Elements::words32
                                         : Elements::bytes;
}

}  // namespace

QkvWriter::QkvWriter(std::string path, std::vector<TensorEntry> entries, Metadata metadata,
                     const std::vector<std::pair<std::string, std::string>>& files, QkvWriterOptions options)
    : sequence_("qkv", path, sized(std::move(entries), path)), options_(options), file_(std::move(path)) {
  require(std::has_single_bit(options.alignment) && options.alignment >= 8 &&
              options.alignment <= kQkvLargestAlignment,
          "[qkv] {}: alignment: expected a power of two from 8 to {}, found {}", sequence_.path(),
          kQkvLargestAlignment, options.alignment);
  require(
      options.chunk_bytes > 0 && options.row_alignment > 0 && options.row_alignment <= kQkvLargestAlignment,
      "[qkv] {}: expected positive sizes of chunks and a row alignment from 1 to {}, found {} and {}",
      sequence_.path(), kQkvLargestAlignment, options.chunk_bytes, options.row_alignment);
  directory_.alignment = options.alignment;
  directory_.codecs.push_back({std::string(kRawCodec), ""});
  if (options_.lossless) {
    for (int codec = 1; codec < kCodecCount; ++codec)
      directory_.codecs.push_back({std::string(codec_name(static_cast<CodecId>(codec))), ""});
    for (int thread = 0; thread < num_threads(); ++thread)
      encoders_.push_back(std::make_unique<ChunkEncoder>(*options_.lossless));
  }
  directory_.metadata = std::move(metadata);
  for (const auto& entry : sequence_.entries()) directory_.tensors.push_back({entry, 0, 1, 0, {}});
  for (const auto& [name, content] : files) {
    require(is_plain_file_name(name), "[qkv] {}: file '{}': expected a plain file name", sequence_.path(),
            shown(name));
    directory_.files.push_back(
        {{name, DType::u8, Shape{static_cast<int64_t>(content.size())}, content.size()}, 0, 1, 0, {}});
  }
  make_qkv_directory(directory_, sequence_.path());  // refuses names before anything is written
  directory_.tensors.clear();

  file_.write(make_qkv_prologue(options.alignment));
  for (size_t i = 0; i < files.size(); ++i) {
    const std::string& content = files[i].second;
    directory_.files[i] =
        append(directory_.files[i].entry, std::as_bytes(std::span(content.data(), content.size())), 1);
  }
}

QkvRecord QkvWriter::append(const TensorEntry& entry, std::span<const std::byte> data,
                            uint64_t row_alignment) {
  const uint64_t rows = static_cast<uint64_t>(entry.shape.rows());
  const uint64_t row = rows == 0 ? tensor_bytes(entry.type, Shape{entry.shape.cols()}) : data.size() / rows;
  QkvRecord record{entry, rounded_up(row, row_alignment), 0, 0, {}};
  record.chunk_bytes = chunk_size(record.row_bytes, static_cast<uint64_t>(traits(entry.type).block_bytes),
                                  options_.chunk_bytes);
  record.offset = aligned_up(file_.size(), options_.alignment);
  file_.write(std::string(record.offset - file_.size(), '\0'));

  const StoredRows stored{data, row, record.row_bytes, record.chunk_bytes, record.stored_bytes()};
  const auto add = [&](uint32_t codec, std::span<const std::byte> bytes, uint64_t checksum) {
    record.chunks.push_back({codec, bytes.size(), checksum, file_.size()});
    file_.write(bytes);
  };
  if (encoders_.empty()) {
    std::string padded;
    for (uint64_t i = 0; i < stored.chunks(); ++i) {
      const auto chunk = stored.chunk(i, padded);
      add(0, chunk, qkv_checksum(chunk));
    }
    return record;
  }
  struct Encoded {
    CodecId codec = CodecId::raw;
    std::string padded;
    std::vector<std::byte> bytes;
    std::span<const std::byte> form;  // of `bytes`, or the chunk as it is
    uint64_t checksum = 0;
  };
  // Several chunks per thread, so that none waits long for the others.
  std::vector<Encoded> batch(encoders_.size() * 4);
  for (uint64_t begin = 0; begin < stored.chunks(); begin += batch.size()) {
    const uint64_t count = std::min<uint64_t>(batch.size(), stored.chunks() - begin);
    parallel_items(static_cast<int64_t>(count), [&](int64_t item, int thread) {
      Encoded& encoded = batch[static_cast<size_t>(item)];
      const auto chunk = stored.chunk(begin + static_cast<uint64_t>(item), encoded.padded);
      const auto result = encoders_[static_cast<size_t>(thread)]->encode(chunk, elements_of(entry.type));
      encoded.codec = result.codec;
      encoded.form = chunk;
      if (result.codec != CodecId::raw) {
        encoded.bytes.assign(result.data.begin(), result.data.end());
        encoded.form = encoded.bytes;
      }
      encoded.checksum = qkv_checksum(encoded.form);
    });
    for (uint64_t i = 0; i < count; ++i)
      add(static_cast<uint32_t>(batch[i].codec), batch[i].form, batch[i].checksum);
  }
  return record;
}

void QkvWriter::write(std::string_view name, const Tensor& tensor) {
  const size_t index = directory_.tensors.size();
  const auto data = sequence_.accept(name, tensor);
  directory_.tensors.push_back(append(sequence_.entries()[index], data, options_.row_alignment));
}

void QkvWriter::finish() {
  sequence_.require_complete();
  file_.write(std::string(aligned_up(file_.size(), 8) - file_.size(), '\0'));
  const uint64_t offset = file_.size();
  const std::string directory = make_qkv_directory(directory_, sequence_.path());
  file_.write(directory);
  file_.write(make_qkv_trailer(offset, directory));
  file_.commit();
}

}  // namespace qkv
