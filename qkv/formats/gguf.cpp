#include "qkv/formats/gguf.h"

#include <filesystem>
#include <unordered_map>

#include "qkv/core/error.h"
#include "qkv/formats/byte_reader.h"
#include "qkv/formats/content.h"

namespace qkv {
namespace {

namespace fs = std::filesystem;

// The keys of split files, with the types that llama.cpp reads.
constexpr std::string_view kSplitNumber = "split.no";              // u16, from 0
constexpr std::string_view kSplitCount = "split.count";            // u16
constexpr std::string_view kSplitTensors = "split.tensors.count";  // i32, of all files together
constexpr std::string_view kSplitKeys[] = {kSplitNumber, kSplitCount, kSplitTensors};

// Five digits in a name.
constexpr int64_t kMostFiles = 99999;

std::string split_path(const std::string& stem, int64_t index, int64_t count) {
  return fmt::format("{}-{:05}-of-{:05}.gguf", stem, index + 1, count);
}

std::string file_name(const std::string& path) {
  return fs::path(path).filename().string();
}

std::vector<TensorEntry> sized(std::vector<TensorEntry> entries, const std::string& path) {
  set_bytes_and_file(entries, "gguf", path);
  return entries;
}

}  // namespace

GgufFile::GgufFile(std::string path) : Checkpoint(std::move(path)) {
  auto file = MappedFile::open(this->path());
  GgufHeader header = parse_gguf_header(file->bytes(), this->path());
  version_ = header.version;
  std::vector<TensorEntry> entries;
  if (header.metadata.integer_or(kSplitCount, 0) > 1) {
    open_split(header, entries);
  } else {
    add_file(this->path(), std::move(file), std::move(header), entries);
  }
  for (const std::string_view key : kSplitKeys) metadata_.erase(key);
  set_entries(std::move(entries));
}

GgufFile::~GgufFile() = default;

void GgufFile::open_split(const GgufHeader& header, std::vector<TensorEntry>& entries) {
  const int64_t count = header.metadata.integer(kSplitCount);
  const int64_t number = header.metadata.integer(kSplitNumber);
  require(number >= 0 && number < count && count <= kMostFiles,
          "[gguf] {}: expected a {} below a {} of at most {}, found {} and {}", path(), kSplitNumber,
          kSplitCount, kMostFiles, number, count);
  const std::string own_suffix = split_path("", number, count);
  require(path().ends_with(own_suffix),
          "[gguf] {}: file {} of {}: expected a name that ends in '{}', by which the other files are found",
          path(), number + 1, count, own_suffix);
  const std::string stem = path().substr(0, path().size() - own_suffix.size());

  int64_t tensors = -1;
  for (int64_t i = 0; i < count; ++i) {
    const std::string part_path = split_path(stem, i, count);
    std::error_code ignored;
    require(fs::exists(part_path, ignored),
            "[gguf] {}: expected its file {} of {}, '{}', beside it, found none", path(), i + 1, count,
            file_name(part_path));
    auto file = MappedFile::open(part_path);
    GgufHeader part = parse_gguf_header(file->bytes(), part_path);
    const int64_t part_number = part.metadata.integer(kSplitNumber);
    const int64_t part_count = part.metadata.integer(kSplitCount);
    require(part_number == i && part_count == count,
            "[gguf] {}: expected {} {} and {} {} by its name, found {} and {}", part_path, kSplitNumber, i,
            kSplitCount, count, part_number, part_count);
    if (i == 0) tensors = part.metadata.integer_or(kSplitTensors, -1);
    add_file(part_path, std::move(file), std::move(part), entries);
  }
  std::unordered_map<std::string_view, std::string_view> file_of;
  for (const auto& entry : entries) {
    const auto [before, is_new] = file_of.emplace(entry.name, entry.file);
    if (!is_new) {
      fail("[gguf] {}: tensor '{}': expected in one file, found in '{}' and '{}'", path(), shown(entry.name),
           before->second, entry.file);
    }
  }
  require(tensors < 0 || static_cast<uint64_t>(tensors) == entries.size(),
          "[gguf] {}: expected {} tensors in {} files by {}, found {}", path(), tensors, count, kSplitTensors,
          entries.size());
}

void GgufFile::add_file(const std::string& path, std::shared_ptr<const MappedFile> file, GgufHeader header,
                        std::vector<TensorEntry>& entries) {
  for (size_t i = 0; i < header.entries.size(); ++i) {
    header.entries[i].file = file_name(path);
    places_.push_back({files_.size(), header.offsets[i]});
    entries.push_back(std::move(header.entries[i]));
  }
  if (files_.empty()) metadata_ = std::move(header.metadata);
  files_.push_back(std::move(file));
}

Tensor GgufFile::read_entry(size_t index) const {
  const Place& place = places_[index];
  const auto& file = files_[place.file];
  return mapped_tensor(entries()[index], file->bytes().data() + place.offset, file);
}

void GgufFile::release_entry(size_t index) const {
  files_[places_[index].file]->drop_pages(places_[index].offset, entries()[index].bytes);
}

GgufWriter::GgufWriter(std::string path, std::vector<TensorEntry> entries, const Metadata& metadata)
    : sequence_("gguf", path, sized(std::move(entries), path)),
      alignment_(gguf_alignment(metadata, path)),
      file_(std::move(path)) {
  file_.write(make_gguf_header(sequence_.entries(), metadata, sequence_.path()));
}

void GgufWriter::write(std::string_view name, const Tensor& tensor) {
  const auto data = sequence_.accept(name, tensor);
  file_.write(data);
  file_.write(std::string(aligned_up(data.size(), alignment_) - data.size(), '\0'));
}

void GgufWriter::finish() {
  sequence_.require_complete();
  file_.commit();
}

std::vector<std::string> write_gguf(const std::string& path, const std::vector<TensorEntry>& entries,
                                    const Metadata& metadata, TensorProvider provider,
                                    uint64_t max_file_bytes) {
  const auto groups = split_by_bytes(entries, max_file_bytes);
  const auto count = static_cast<int64_t>(groups.size());
  require(count <= INT16_MAX && entries.size() <= INT32_MAX,
          "[gguf] {}: expected at most {} files, found {}: allow larger ones", path, INT16_MAX, count);
  const std::string stem = path.ends_with(".gguf") ? path.substr(0, path.size() - 5) : path;
  std::vector<std::string> paths;
  std::vector<std::unique_ptr<GgufWriter>> writers;
  for (int64_t i = 0; i < count; ++i) {
    Metadata own = i == 0 ? metadata : Metadata(metadata.where());
    if (count > 1) {
      if (const MetadataValue* alignment = metadata.find(kGgufAlignmentKey))
        own.set(std::string(kGgufAlignmentKey), *alignment);
      own.set(std::string(kSplitNumber), static_cast<uint16_t>(i));
      own.set(std::string(kSplitCount), static_cast<uint16_t>(count));
      own.set(std::string(kSplitTensors), static_cast<int32_t>(entries.size()));
    }
    paths.push_back(count == 1 ? path : split_path(stem, i, count));
    const auto& group = groups[static_cast<size_t>(i)];
    writers.push_back(std::make_unique<GgufWriter>(paths.back(), group, own));
    for (const auto& entry : group) writers.back()->write(entry.name, provider(entry));
  }
  for (auto& writer : writers) writer->finish();
  return paths;
}

}  // namespace qkv
