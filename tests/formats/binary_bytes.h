// Binary files made byte by byte, right and wrong, without the code under test.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace qkv::test {

// Appends little-endian numbers and texts; every call returns the builder.
class Bytes {
 public:
  template <typename T>
  Bytes& add(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(value));
    return *this;
  }
  Bytes& u8(uint8_t value) { return add(value); }
  Bytes& u16(uint16_t value) { return add(value); }
  Bytes& u32(uint32_t value) { return add(value); }
  Bytes& i32(int32_t value) { return add(value); }
  Bytes& u64(uint64_t value) { return add(value); }
  Bytes& f32(float value) { return add(value); }
  Bytes& raw(std::string_view text) {
    bytes_.append(text);
    return *this;
  }
  // A u64 length and the text.
  Bytes& text(std::string_view text) { return u64(text.size()).raw(text); }
  Bytes& align(size_t alignment) {
    bytes_.append((alignment - bytes_.size() % alignment) % alignment, '\0');
    return *this;
  }
  const std::string& str() const { return bytes_; }
  size_t size() const { return bytes_.size(); }

 private:
  std::string bytes_;
};

// The pieces of a GGUF file: give() puts them together.
struct GgufParts {
  std::string magic = "GGUF";
  uint32_t version = 3;
  std::vector<std::string> pairs;    // key, type id, value
  std::vector<std::string> tensors;  // name, dimensions, type id, offset
  size_t alignment = 32;
  std::string data;
  // What the header says, where it is to differ.
  int64_t tensor_count = -1;
  int64_t pair_count = -1;

  std::string give() const {
    Bytes bytes;
    bytes.raw(magic).u32(version);
    bytes.u64(tensor_count < 0 ? tensors.size() : static_cast<uint64_t>(tensor_count));
    bytes.u64(pair_count < 0 ? pairs.size() : static_cast<uint64_t>(pair_count));
    for (const auto& pair : pairs) bytes.raw(pair);
    for (const auto& tensor : tensors) bytes.raw(tensor);
    if (!tensors.empty()) bytes.align(alignment);
    return bytes.raw(data).str();
  }
};

// The record of a tensor; dimensions as in the file, the fastest first.
inline std::string gguf_tensor(std::string_view name, const std::vector<uint64_t>& dims, uint32_t type,
                               uint64_t offset) {
  Bytes bytes;
  bytes.text(name).u32(static_cast<uint32_t>(dims.size()));
  for (const uint64_t dim : dims) bytes.u64(dim);
  return bytes.u32(type).u64(offset).str();
}

}  // namespace qkv::test
