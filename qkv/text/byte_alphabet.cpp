// The mapping: printable Latin-1 bytes stand for themselves, the other 68 for U+0100 onwards.
#include "qkv/text/byte_alphabet.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <numeric>

#include "qkv/core/utf8.h"

namespace qkv {
namespace {

constexpr char32_t kFirstSubstitute = 0x100;
constexpr size_t kSubstitutes = 68;

constexpr bool stands_for_itself(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

constexpr std::array<char32_t, 256> make_code_points() {
  std::array<char32_t, 256> points{};
  char32_t next = kFirstSubstitute;
  for (int byte = 0; byte < 256; ++byte)
    points[byte] = stands_for_itself(byte) ? static_cast<char32_t>(byte) : next++;
  return points;
}

constexpr std::array<char32_t, 256> kCodePoints = make_code_points();

// Byte of each code point below U+0144, -1 outside the alphabet.
constexpr auto kBytes = [] {
  std::array<int16_t, kFirstSubstitute + kSubstitutes> bytes{};
  for (auto& byte : bytes) byte = -1;
  for (int byte = 0; byte < 256; ++byte) bytes[kCodePoints[byte]] = static_cast<int16_t>(byte);
  return bytes;
}();

}  // namespace

const std::array<std::string, 256>& byte_characters() {
  static const std::array<std::string, 256> characters = [] {
    std::array<std::string, 256> made;
    for (int byte = 0; byte < 256; ++byte) append_utf8(made[byte], kCodePoints[byte]);
    return made;
  }();
  return characters;
}

const std::array<uint8_t, 256>& byte_order() {
  static const std::array<uint8_t, 256> order = [] {
    std::array<uint8_t, 256> made;
    std::iota(made.begin(), made.end(), uint8_t{0});
    std::sort(made.begin(), made.end(), [](uint8_t a, uint8_t b) { return kCodePoints[a] < kCodePoints[b]; });
    return made;
  }();
  return order;
}

std::string spell_bytes(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const char byte : bytes) out += byte_characters()[static_cast<uint8_t>(byte)];
  return out;
}

std::optional<std::string> unspell_bytes(std::string_view spelling) {
  std::string out;
  out.reserve(spelling.size());
  for (size_t i = 0; i < spelling.size();) {
    const auto c = next_code_point(spelling, i);
    if (!c || *c >= kBytes.size() || kBytes[*c] < 0) return std::nullopt;
    out += static_cast<char>(kBytes[*c]);
  }
  return out;
}

std::string byte_token(uint8_t byte) {
  return fmt::format("<0x{:02X}>", byte);
}

std::optional<uint8_t> byte_of_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  uint8_t byte = 0;
  const auto [stop, code] = std::from_chars(token.data() + 3, token.data() + 5, byte, 16);
  if (code != std::errc() || stop != token.data() + 5) return std::nullopt;
  return byte;
}

}  // namespace qkv
