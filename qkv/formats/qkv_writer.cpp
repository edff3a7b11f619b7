#include <algorithm>

#include "qkv/core/error.h"
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

  const uint64_t stored = record.stored_bytes();
  std::string padded;
  for (uint64_t begin = 0; begin < stored; begin += record.chunk_bytes) {
    const uint64_t size = std::min(record.chunk_bytes, stored - begin);
    std::span<const std::byte> chunk;
    if (record.row_bytes == row) {
      chunk = data.subspan(begin, size);
    } else {  // byte by row: only files that ask for padding take this way
      padded.clear();
      for (uint64_t position = begin; position < begin + size;) {
        const uint64_t within = position % record.row_bytes;
        const uint64_t step = std::min(record.row_bytes - within, begin + size - position);
        const uint64_t used = within < row ? std::min(step, row - within) : 0;
        const auto source = data.subspan(position / record.row_bytes * row + std::min(within, row), used);
        padded.append(reinterpret_cast<const char*>(source.data()), used);
        padded.append(step - used, '\0');
        position += step;
      }
      chunk = std::as_bytes(std::span(padded.data(), padded.size()));
    }
    record.chunks.push_back({0, size, qkv_checksum(chunk), file_.size()});
    file_.write(chunk);
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
