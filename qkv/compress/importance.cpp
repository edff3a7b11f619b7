#include "qkv/compress/importance.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "qkv/core/atomic_file.h"
#include "qkv/core/error.h"
#include "qkv/core/mapped_file.h"
#include "qkv/formats/byte_reader.h"
#include "qkv/formats/gguf.h"

namespace qkv {
namespace {

constexpr std::string_view kSums = ".in_sum2", kCounts = ".counts";
constexpr const char* kDatasets = "imatrix.datasets";
constexpr const char* kChunkCount = "imatrix.chunk_count";
constexpr const char* kChunkSize = "imatrix.chunk_size";

void require_valid(const std::string& path, const std::string& name, const Importance::Matrix& matrix) {
  for (size_t i = 0; i < matrix.sums.size(); ++i) {
    require(std::isfinite(matrix.sums[i]) && matrix.sums[i] >= 0,
            "[imatrix] {}: '{}': expected sums of squares, found {} at {}", path, name, matrix.sums[i], i);
  }
}

Importance read_gguf(const std::string& path) {
  const GgufFile file(path);
  require(
      file.metadata().string_or("general.type", "") == "imatrix",
      "[imatrix] {}: expected an importance matrix (general.type = imatrix), found a GGUF file of type '{}'",
      path, file.metadata().string_or("general.type", "model"));
  Importance importance;
  if (file.metadata().has(kDatasets)) importance.datasets = file.metadata().strings(kDatasets);
  importance.chunks = file.metadata().integer_or(kChunkCount, 0);
  importance.chunk_tokens = file.metadata().integer_or(kChunkSize, 512);
  for (const auto& entry : file.entries()) {
    if (!entry.name.ends_with(kSums)) continue;
    const std::string name = entry.name.substr(0, entry.name.size() - kSums.size());
    const std::string counts_name = name + std::string(kCounts);
    const TensorEntry* counts = file.find(counts_name);
    require(counts != nullptr, "[imatrix] {}: tensor '{}' is missing", path, counts_name);
    require(
        entry.type == DType::f32 && counts->type == DType::f32 && counts->shape.elements() > 0 &&
            entry.shape.elements() % counts->shape.elements() == 0,
        "[imatrix] {}: '{}': expected f32 sums and a count for each of its experts, found {} {} and {} {}",
        path, name, qkv::name(entry.type), entry.shape.str(), qkv::name(counts->type), counts->shape.str());
    Importance::Matrix matrix;
    matrix.sums = file.read(entry.name).to_floats();
    for (const float count : file.read(counts_name).to_floats()) {
      require(count >= 0 && count < 1e15f, "[imatrix] {}: '{}': expected a number of tokens, found {}", path,
              name, count);
      matrix.counts.push_back(std::llround(count));
    }
    require_valid(path, name, matrix);
    importance.matrices.emplace(name, std::move(matrix));
  }
  return importance;
}

// int32 entries; per entry: name length, name, calls, values, floats (means times calls). Then the number of
// chunks and the name of the text, which older files lack.
Importance read_dat(const std::string& path, std::span<const std::byte> bytes) {
  size_t at = 0;
  const auto take = [&](size_t count, const char* what) {
    require(count <= bytes.size() - at,
            "[imatrix] {}: expected {} ({} bytes) at offset {}, found the end of the file", path, what, count,
            at);
    const std::byte* data = bytes.data() + at;
    at += count;
    return data;
  };
  const auto number = [&](const char* what) {
    int32_t value = 0;
    std::memcpy(&value, take(sizeof value, what), sizeof value);
    require(value >= 0, "[imatrix] {}: expected {}, found {}: this is no importance matrix", path, what,
            value);
    return static_cast<size_t>(value);
  };
  const auto text = [&](const char* what) {
    const size_t length = number(what);
    require(length < 4096,
            "[imatrix] {}: expected {} of at most 4095 bytes, found {}: this is no importance matrix", path,
            what, length);
    return std::string(reinterpret_cast<const char*>(take(length, what)), length);
  };
  Importance importance;
  const size_t entries = number("the number of entries");
  require(entries > 0, "[imatrix] {}: expected at least one entry, found none", path);
  for (size_t i = 0; i < entries; ++i) {
    const std::string name = text("a tensor's name");
    const size_t calls = number("a number of calls"), values = number("a number of values");
    Importance::Matrix matrix;
    const std::byte* data = take(values * sizeof(float), "values");
    matrix.sums.resize(values);
    if (values > 0) std::memcpy(matrix.sums.data(), data, values * sizeof(float));
    matrix.counts = {static_cast<int64_t>(std::max<size_t>(calls, 1))};
    require_valid(path, name, matrix);
    require(importance.matrices.emplace(name, std::move(matrix)).second,
            "[imatrix] {}: entry '{}' comes twice", path, name);
  }
  if (at < bytes.size()) importance.chunks = static_cast<int64_t>(number("the number of chunks"));
  if (at < bytes.size()) importance.datasets = {text("the text's name")};
  // The counts are calls of chunk_tokens each, which the file does not say; only the means matter.
  importance.chunk_tokens = 1;
  return importance;
}

void write_gguf_form(const std::string& path, const Importance& importance) {
  Metadata metadata(path);
  metadata.set("general.type", std::string("imatrix"));
  metadata.set(kDatasets, importance.datasets);
  metadata.set(kChunkCount, static_cast<uint32_t>(importance.chunks));
  metadata.set(kChunkSize, static_cast<uint32_t>(importance.chunk_tokens));
  std::vector<TensorEntry> entries;
  for (const auto& [name, matrix] : importance.matrices) {
    const auto experts = static_cast<int64_t>(matrix.counts.size());
    entries.push_back({name + std::string(kSums),
                       DType::f32,
                       {experts, static_cast<int64_t>(matrix.sums.size()) / experts}});
    entries.push_back({name + std::string(kCounts), DType::f32, {experts, 1}});
  }
  GgufWriter writer(path, entries, metadata);
  for (const auto& entry : entries) {
    const bool counts = entry.name.ends_with(kCounts);
    const auto& matrix =
        importance.matrices.at(entry.name.substr(0, entry.name.size() - (counts ? kCounts : kSums).size()));
    const std::vector<float> values =
        counts ? std::vector<float>(matrix.counts.begin(), matrix.counts.end()) : matrix.sums;
    writer.write(entry.name, Tensor::from(values, entry.shape));
  }
  writer.finish();
}

void write_dat(const std::string& path, const Importance& importance) {
  std::string bytes;
  const auto put = [&](size_t value) {
    const auto number = static_cast<int32_t>(value);
    bytes.append(reinterpret_cast<const char*>(&number), sizeof number);
  };
  put(importance.matrices.size());
  for (const auto& [name, matrix] : importance.matrices) {
    put(name.size());
    bytes += name;
    const int64_t most = *std::max_element(matrix.counts.begin(), matrix.counts.end());
    const int64_t calls =
        std::max<int64_t>(1, (most + importance.chunk_tokens - 1) / importance.chunk_tokens);
    put(static_cast<size_t>(calls));
    put(matrix.sums.size());
    for (const float mean : matrix.means()) {
      const float value = mean * static_cast<float>(calls);
      bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
    }
  }
  put(static_cast<size_t>(importance.chunks));
  const std::string dataset = importance.datasets.empty() ? "" : importance.datasets.back();
  put(dataset.size());
  bytes += dataset;
  write_file(path, bytes);
}

}  // namespace

std::vector<float> Importance::Matrix::means() const {
  std::vector<float> values(sums.size());
  const size_t cols = sums.size() / counts.size();
  for (size_t e = 0; e < counts.size(); ++e) {
    for (size_t i = e * cols; i < (e + 1) * cols; ++i) {
      values[i] = counts[e] > 0 ? sums[i] / static_cast<float>(counts[e]) : 1.0f;
    }
  }
  return values;
}

void Importance::require_of(const std::vector<TensorEntry>& tensors, const std::string& where) const {
  std::map<std::string_view, const TensorEntry*> by_name;
  for (const auto& entry : tensors) by_name.emplace(entry.name, &entry);
  for (const auto& [name, matrix] : matrices) {
    const auto found = by_name.find(name);
    require(found != by_name.end(),
            "{}: the importance matrix is of another model: it has '{}', which is no tensor of this one",
            where, name);
    const Shape& shape = found->second->shape;
    const int64_t experts = shape.rank() > 2 ? shape.rows() / shape[-2] : 1;
    const auto size = static_cast<int64_t>(matrix.sums.size());
    require(size == experts * shape.cols() || size == shape.cols(),
            "{}: the importance matrix is of another model: expected {} values for tensor '{}' {}, found {}",
            where, experts * shape.cols(), name, shape.str(), size);
  }
}

Importance read_importance(const std::string& path) {
  const auto file = MappedFile::open(path);
  const auto bytes = file->bytes();
  const bool gguf = bytes.size() >= 4 && std::memcmp(bytes.data(), "GGUF", 4) == 0;
  Importance importance = gguf ? read_gguf(path) : read_dat(path, bytes);
  require(!importance.matrices.empty(), "[imatrix] {}: expected at least one entry, found none", path);
  for (const auto& [name, matrix] : importance.matrices) {
    require(!matrix.sums.empty(), "[imatrix] {}: '{}': expected values, found none", path, name);
  }
  return importance;
}

void write_importance(const std::string& path, const Importance& importance) {
  require(!importance.matrices.empty(), "[imatrix] {}: expected at least one matrix to write, found none",
          path);
  if (path.ends_with(".dat")) return write_dat(path, importance);
  write_gguf_form(path, importance);
}

}  // namespace qkv
