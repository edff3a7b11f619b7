// The inner loops of the lossless codecs (qkv/codec): moving fields of 16-bit numbers apart and together,
// Huffman streams, codebooks. A table per instruction set like Kernels', of its own because only the codecs
// need it.
//
// Every function stays within the memory that its comment names, whatever the data are.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "qkv/kernels/kernels.h"

namespace qkv {

// Four streams side by side keep four lookups in flight.
constexpr int kCodecStreams = 4;
// Codes have at most so many bits: five of them and seven bits fit a word.
constexpr int kCodecBits = 11;
constexpr int kCodecLookups = 5;

// Codes written from the lowest bit up. T: uint8_t or uint16_t.
template <typename T>
struct HuffmanWriter {
  const T* symbol = nullptr;
  std::byte* to = nullptr;  // eight bytes are written at a time
  uint64_t word = 0;        // bits that are still to be written
  uint32_t used = 0;        // how many
};

// A table entry: 8 bits, how many bits of input it takes (at most kCodecBits, so that they are a shift as they
// are); 8 bits, how many symbols it holds; then up to kCodecSymbols<T> symbols.
template <typename T>
constexpr int kCodecSymbols = static_cast<int>(6 / sizeof(T));

template <typename T>
struct HuffmanReader {
  const std::byte* in = nullptr;
  const std::byte* in_last = nullptr;  // the last position that eight bytes may be read from
  uint64_t bit = 0;                    // of *in, 0 to 7
  T* out = nullptr;
  T* out_end = nullptr;

  // Room that one step may write to: kCodecLookups entries, each stored as eight bytes.
  static constexpr std::ptrdiff_t kSlack =
      kCodecLookups * kCodecSymbols<T> + static_cast<std::ptrdiff_t>(8 / sizeof(T));
  bool has_step() const { return in <= in_last && out_end - out >= kSlack; }
};

struct CodecKernels {
  // field[i] = bits 6 to 14 of words[i]; rest[i] = its sign (bit 6) and low six bits.
  void (*split_words)(const uint16_t* words, int64_t n, uint16_t* field, uint8_t* rest);
  // Puts the rest beside the fields, which words[i] has in their place. rest (n).
  void (*join_words)(const uint8_t* rest, int64_t n, uint16_t* words);
  // Seven bits of each byte, eight bytes to seven: writes (n + 7) / 8 * 7 bytes and may write one more.
  void (*pack7)(const uint8_t* bytes, int64_t n, std::byte* packed);
  // join_words() of a packed rest of (n + 7) / 8 * 7 bytes.
  void (*join_packed)(const std::byte* packed, int64_t n, uint16_t* words);

  // `steps` times kCodecLookups symbols of each writer; codes[s] is the code | its length << 16.
  void (*huffman_write16)(HuffmanWriter<uint16_t>* writers, int64_t steps, const uint32_t* codes);
  void (*huffman_write8)(HuffmanWriter<uint8_t>* writers, int64_t steps, const uint32_t* codes);
  // Steps of kCodecLookups table lookups of each reader, while all readers have one. table: 2^kCodecBits
  // entries.
  void (*huffman_read16)(HuffmanReader<uint16_t>* readers, const uint64_t* table);
  void (*huffman_read8)(HuffmanReader<uint8_t>* readers, const uint64_t* table);

  // words[i] = codebook[index i] of n packed indices of `bits` (4 to 12) bits, the first of which begins a
  // byte. Reads up to eight bytes behind the indices, none for 8 bits. codebook: 2^bits entries.
  void (*look_up)(const std::byte* indices, int bits, int64_t n, const uint16_t* codebook, uint16_t* words);
  // Groups of eight words: bit i of the group's bitmap set: word i is the next of `known`, else the next of
  // `others`, which are 16-bit words anywhere. Reads up to 64 bytes behind the last of either.
  void (*merge_words)(const std::byte* bitmaps, int64_t groups, const uint16_t* known,
                      const std::byte* others, uint16_t* words);
};

// The active set's table.
const CodecKernels& codec_kernels();
// The table of one available set: that of the next lower one where it has none. For tests.
CodecKernels codec_kernels_for(Isa isa);

}  // namespace qkv
