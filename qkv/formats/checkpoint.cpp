#include "qkv/formats/checkpoint.h"

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "qkv/core/error.h"
#include "qkv/core/mapped_file.h"
#include "qkv/formats/checkpoint_formats.h"
#include "qkv/formats/content.h"
#include "qkv/formats/hf_directory.h"
#include "qkv/formats/quantized/dequantized.h"

namespace qkv {
namespace {

namespace fs = std::filesystem;

// "a .safetensors file, ... or a Hugging Face directory with ...".
std::string supported() {
  std::string list;
  for (const auto& format : checkpoint_formats()) list += fmt::format("{}, ", format.description);
  return list + "or a Hugging Face directory (a config.json with safetensors or PyTorch files)";
}

// "a directory with a, b, c and 4 more".
std::string describe_directory(const std::string& path) {
  constexpr size_t kShown = 8;
  std::vector<std::string> names;
  std::error_code code;
  fs::directory_iterator items(path, code);
  if (code) return fmt::format("a directory that cannot be listed: {}", code.message());
  for (const auto& item : items) names.push_back(shown(item.path().filename().string()));
  if (names.empty()) return "an empty directory";
  std::sort(names.begin(), names.end());
  const size_t count = names.size();
  names.resize(std::min(count, kShown));
  return fmt::format("a directory with {}{}", fmt::join(names, ", "),
                     count > kShown ? fmt::format(" and {} more", count - kShown) : "");
}

std::unique_ptr<Checkpoint> open_file(const std::string& path) {
  const auto file = MappedFile::open(path);
  for (const auto& format : checkpoint_formats()) {
    if (format.recognizes(file->bytes())) return format.open(path);
  }
  const std::string extension = fs::path(path).extension().string();
  for (const auto& format : checkpoint_formats()) {
    if (!extension.empty() && extension == format.extension) return format.open(path);
  }
  const std::string_view kind = content_by_signature(file->bytes());
  fail("[checkpoint] {}: expected {}; found {}", path, supported(),
       kind.empty() ? fmt::format("a file of {} bytes of no known kind", file->bytes().size())
                    : std::string(kind));
}

std::unique_ptr<Checkpoint> open_stored(const std::string& path) {
  std::error_code code;
  const fs::file_status status = fs::status(path, code);
  if (!fs::exists(status)) {
    fail("[checkpoint] {}: expected {}; found {}", path, supported(),
         code && status.type() != fs::file_type::not_found ? code.message() : "no such file or directory");
  }
  if (!fs::is_directory(status)) return open_file(path);
  if (HfDirectory::recognizes(path)) return std::make_unique<HfDirectory>(path);
  fail("[checkpoint] {}: expected {}; found {}", path, supported(), describe_directory(path));
}

}  // namespace

uint64_t tensor_bytes(DType type, const Shape& shape) {
  const DTypeTraits& row = traits(type);
  require(shape.cols() % row.block_length == 0, "{} {}: expected a last dimension that is a multiple of {}",
          row.name, shape.str(), row.block_length);
  int64_t bytes = 0;
  require(!__builtin_mul_overflow(shape.elements() / row.block_length, int64_t{row.block_bytes}, &bytes),
          "{} {}: more than 2^63 bytes", row.name, shape.str());
  return static_cast<uint64_t>(bytes);
}

const TensorEntry* Checkpoint::find(std::string_view name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : &entries_[it->second];
}

uint64_t Checkpoint::total_bytes() const {
  uint64_t total = 0;
  for (const auto& entry : entries_) total += entry.bytes;
  return total;
}

Tensor Checkpoint::read(std::string_view name) const {
  return read_entry(index_of(name));
}
void Checkpoint::release(std::string_view name) const {
  release_entry(index_of(name));
}

void Checkpoint::set_entries(std::vector<TensorEntry> entries) {
  entries_ = std::move(entries);
  index_.clear();
  index_.reserve(entries_.size());
  for (size_t i = 0; i < entries_.size(); ++i) index_.emplace(entries_[i].name, i);
}

Tensor Checkpoint::mapped_tensor(const TensorEntry& entry, const std::byte* data,
                                 std::shared_ptr<const void> owner) {
  // Blocks hold scales of 2 or 4 bytes.
  const auto alignment = static_cast<uintptr_t>(is_block(entry.type) ? 4 : traits(entry.type).block_bytes);
  if (reinterpret_cast<uintptr_t>(data) % alignment == 0) {
    return Tensor::borrowed(data, entry.shape, entry.type, std::move(owner));
  }
  Tensor copy = Tensor::empty(entry.shape, entry.type);
  if (entry.bytes > 0) std::memcpy(copy.raw(), data, entry.bytes);
  return copy;
}

size_t Checkpoint::index_of(std::string_view name) const {
  const auto it = index_.find(name);
  if (it != index_.end()) return it->second;
  std::vector<std::string> names;
  for (const auto& entry : entries_) names.push_back(entry.name);
  fail("[{}] {}: tensor '{}': expected in the checkpoint, found {} others{}", format_name(), path_,
       shown(name), entries_.size(), suggestion(name, names));
}

std::unique_ptr<Checkpoint> open_checkpoint(const std::string& path) {
  return dequantized_view(open_stored(path));
}

}  // namespace qkv
