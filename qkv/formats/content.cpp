#include "qkv/formats/content.h"

#include <array>
#include <cstdint>
#include <cstring>

#include "qkv/core/utf8.h"
#include "qkv/formats/qkv_layout.h"
#include "qkv/formats/safetensors_header.h"

namespace qkv {
namespace {

struct Signature {
  std::string_view bytes;
  std::string_view kind;
};

constexpr std::array<Signature, 7> kSignatures = {{
    {"version https://git-lfs",
     "a Git LFS pointer instead of the data it stands for (fetch it with `git lfs pull`)"},
    {"GGUF", "a GGUF file"},
    {kQkvMagic, "a .qkv file"},
    {std::string_view("PK\x03\x04", 4), "a ZIP archive (a PyTorch checkpoint?)"},
    {"\x89HDF\r\n", "an HDF5 file"},
    {"\x80\x02", "a Python pickle (a PyTorch checkpoint?)"},
    {"<!DOCTYPE", "an HTML page"},
}};

}  // namespace

std::string_view content_by_signature(std::span<const std::byte> bytes) {
  if (bytes.empty()) return "an empty file";
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  for (const auto& signature : kSignatures) {
    if (text.starts_with(signature.bytes)) return signature.kind;
  }
  return {};
}

bool looks_like_safetensors(std::span<const std::byte> bytes) {
  if (bytes.size() <= kSafetensorsLengthBytes) return false;
  const uint64_t length = safetensors_header_length(bytes);
  return length <= kSafetensorsHeaderLimit && length <= bytes.size() - kSafetensorsLengthBytes &&
         bytes[kSafetensorsLengthBytes] == std::byte{'{'};
}

bool is_plain_file_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string_view::npos &&
         name.find('\0') == std::string_view::npos;
}

std::string shown(std::string_view text) {
  constexpr size_t kLimit = 160;
  std::string result = replace_invalid_utf8(text.substr(0, complete_utf8_prefix(text.substr(0, kLimit))));
  for (char& c : result) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return text.size() > kLimit ? result + "..." : result;
}

}  // namespace qkv
