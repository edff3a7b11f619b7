// Builds binary files byte by byte, right and wrong, without the code under test.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

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

}  // namespace qkv::test
