// A bounds-checked cursor over the little-endian bytes of a file.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

namespace qkv {

static_assert(std::endian::native == std::endian::little, "the binary formats are read and written in place");

class ByteReader {
 public:
  // `where` opens every error sentence: "[gguf] <path>".
  ByteReader(std::span<const std::byte> bytes, std::string where) : bytes_(bytes), where_(std::move(where)) {}

  uint64_t position() const { return position_; }
  uint64_t remaining() const { return bytes_.size() - position_; }
  const std::string& where() const { return where_; }

  // What the errors of the next reads are about: "tensor 3", "key 'x'". Not copied.
  void set_subject(std::string_view subject) { subject_ = subject; }

  // The next number; throws Error `<where>: <subject>: <what>: expected 8 bytes, found 3` at the end of the
  // file.
  template <typename T>
  T number(std::string_view what) {
    static_assert(std::is_arithmetic_v<T> && !std::is_same_v<T, bool>);
    T value;
    std::memcpy(&value, take(sizeof(T), what).data(), sizeof(T));
    return value;
  }
  // The next `size` bytes, which stay where they are.
  std::span<const std::byte> take(uint64_t size, std::string_view what) {
    if (size > remaining()) fail_short(size, what);
    const auto piece = bytes_.subspan(position_, size);
    position_ += size;
    return piece;
  }
  std::string_view text(uint64_t size, std::string_view what) {
    const auto piece = take(size, what);
    return {reinterpret_cast<const char*>(piece.data()), piece.size()};
  }
  // A text after its length, a u64.
  std::string_view sized_text(std::string_view what) { return text(number<uint64_t>(what), what); }
  // A count of things of at least `least_bytes` bytes each; throws Error if so many cannot follow.
  uint64_t count(uint64_t least_bytes, std::string_view what);

 private:
  [[noreturn]] void fail_short(uint64_t size, std::string_view what) const;
  std::string prefix(std::string_view what) const;

  std::span<const std::byte> bytes_;
  std::string where_;
  std::string_view subject_;
  uint64_t position_ = 0;
};

// The writing side: appends a number or a text after its length.
template <typename T>
void append_number(std::string& out, T value) {
  static_assert(std::is_arithmetic_v<T> && !std::is_same_v<T, bool>);
  out.append(reinterpret_cast<const char*>(&value), sizeof(T));
}
inline void append_sized_text(std::string& out, std::string_view text) {
  append_number<uint64_t>(out, text.size());
  out.append(text);
}

// The next multiple of `alignment`, a power of two; 0 if it does not fit.
constexpr uint64_t aligned_up(uint64_t value, uint64_t alignment) {
  return (value + alignment - 1) & ~(alignment - 1);
}

}  // namespace qkv
