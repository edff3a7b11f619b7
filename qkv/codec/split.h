// Floating-point numbers by their fields. Exponents of weights are few and skewed (2.5 bits of entropy for
// Gaussian weights), signs and mantissas nearly random: coding only what is skewed is nearly as small as
// anything can be, and fast (ZipNN, Hershcovitch et al., arXiv 2411.05239; DFloat11, Zhang et al., arXiv
// 2504.11651).
//
// 16-bit numbers (bf16 and f16 alike): a field of nine bits below the sign (bf16: exponent and first mantissa
// bit, whose joint entropy is less than that of the two apart; f16: exponent and four mantissa bits) is
// Huffman coded; the other seven bits are packed. 32-bit numbers: the eight exponent bits, and three planes
// of bytes. Bytes: one plane. A plane of bytes is stored, or coded where that is smaller by 1 % or more.
//
// Data: u8 Elements, the coded field (huffman.h), then for 16-bit numbers u8 form of the rest (0: packed
// seven bits; 1: Huffman coded) and the rest; for the others each plane with u8 form (0: bytes; 1: coded).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "qkv/codec/codec.h"

namespace qkv {

// Memory that is used again for the next chunk: fresh megabytes cost more than the coding.
struct SplitScratch {
  std::vector<uint16_t> field, words;
  std::vector<uint8_t> plane;
};
// Replaces `out` by the encoded chunk. False if that is no smaller than the chunk, or if the chunk is no
// whole number of elements.
bool split_encode(std::span<const std::byte> raw, Elements elements, SplitScratch& scratch,
                  std::vector<std::byte>& out);
void split_decode(std::span<const std::byte> data, std::span<std::byte> raw);

// What the codec would leave of `raw` by the entropies of its fields, as a part; 1 where it would leave it
// raw.
double split_share(std::span<const std::byte> raw, Elements elements, SplitScratch& scratch);

// What order-0 entropy coding of the byte planes would reach at best, as a share of the chunk: the limit that
// results stand beside.
double plane_entropy_share(std::span<const std::byte> raw, Elements elements);

}  // namespace qkv
