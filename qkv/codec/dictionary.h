// The commonest 16-bit values of a chunk as a codebook, for tensors of few distinct values (quantized and
// converted weights, embeddings with repeats). For ordinary trained bf16 weights it is a poor codec: a
// codebook of 256 covers a third of Gaussian values and saves a tenth; the split codec saves a third.
//
// Data: u8 log2 of the codebook's entries (4 to 12), u8 1 if every element is covered, the codebook (2 bytes
// an entry), then, unless all is covered, a bitmap byte per group of eight elements (bit i: element i is an
// index), the indices of all covered elements (one byte each for 256 entries, else packed bits, least
// significant first, padded to 8 bytes), and the other elements as they are.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace qkv {

// Replaces `out` by the encoded chunk. entries: a power of two from 16 to 4096, or 0 for what is smallest.
// False if no codebook makes the chunk smaller, or if it is no whole number of 16-bit words.
bool dictionary_encode(std::span<const std::byte> raw, int entries, std::vector<std::byte>& out);
// The size that dictionary_encode() would give; that of the chunk if it would be no smaller.
size_t dictionary_bytes(std::span<const std::byte> raw, int entries);
void dictionary_decode(std::span<const std::byte> data, std::span<std::byte> raw);

}  // namespace qkv
