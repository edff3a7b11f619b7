// Length-limited Huffman coding of small alphabets (Huffman 1952; limits by package-merge, Larmore &
// Hirschberg 1990), made for decoding speed: codes of at most 11 bits, a table whose every entry holds as
// many whole symbols as fit its 11 bits, and four independent bit streams per plane so that a core has four
// lookups in flight.
//
// A coded plane: first and last used symbol (u16 each), the lengths of those between (4 bits each), the bytes
// of the first three streams (u32 each), then the streams. Stream s holds symbols [n s / 4, n (s + 1) / 4),
// least significant bit first, padded with 8 bytes so that a decoder may always load a word.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace qkv {

constexpr int kHuffmanBits = 11;
constexpr int kHuffmanSymbols = 512;

using SymbolCounts = std::array<uint32_t, kHuffmanSymbols>;

// Counts of symbols below kHuffmanSymbols (u16) or of bytes.
SymbolCounts count_symbols(std::span<const uint16_t> symbols);
SymbolCounts count_symbols(std::span<const uint8_t> symbols);

// Bits per symbol that no order-0 code can go below.
double entropy_bits(const SymbolCounts& counts);

class HuffmanCode {
 public:
  // The best code whose lengths are at most kHuffmanBits. Symbols that do not occur get none; a single symbol
  // gets length 1.
  explicit HuffmanCode(const SymbolCounts& counts);
  // Bytes that encode() will append for a plane with these counts.
  size_t encoded_bytes(const SymbolCounts& counts) const;
  void encode(std::span<const uint16_t> symbols, std::vector<std::byte>& out) const;
  void encode(std::span<const uint8_t> symbols, std::vector<std::byte>& out) const;

 private:
  template <typename T>
  void encode_plane(std::span<const T> symbols, std::vector<std::byte>& out) const;
  size_t header_bytes() const;
  std::array<uint8_t, kHuffmanSymbols> lengths_{};
  std::array<uint32_t, kHuffmanSymbols> codes_{};  // code, bit-reversed, | length << 16
  int first_ = 0, last_ = 0;                       // used symbols
};

// Decodes a plane of symbols.size() symbols, each shifted left by `shift`. Returns the bytes that it took.
// Error if `data` is not a plane of that many symbols below `alphabet`.
size_t huffman_decode(std::span<const std::byte> data, int alphabet, int shift, std::span<uint16_t> symbols);
size_t huffman_decode(std::span<const std::byte> data, int alphabet, std::span<uint8_t> symbols);

}  // namespace qkv
