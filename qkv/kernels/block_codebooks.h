// The codebooks of the IQ block types, expanded to bytes, and the value tables of the 4-bit non-linear types.
#pragma once

#include <array>
#include <cstdint>

namespace qkv {

template <typename Value, int width, int entries>
using Codebook = std::array<std::array<Value, width>, entries>;

extern const Codebook<uint8_t, 8, 256> kIq2XxsGrid;
extern const Codebook<uint8_t, 8, 512> kIq2XsGrid;
extern const Codebook<uint8_t, 8, 1024> kIq2SGrid;
extern const Codebook<uint8_t, 4, 256> kIq3XxsGrid;
extern const Codebook<uint8_t, 4, 512> kIq3SGrid;
extern const Codebook<int8_t, 8, 2048> kIq1Grid;

// 8 signs (bit set: negative) of which 7 are stored: the eighth makes the number of negatives even.
constexpr uint8_t signs_of_seven(uint32_t stored) {
  const uint32_t bits = stored & 127;
  return static_cast<uint8_t>(bits | (static_cast<uint32_t>(__builtin_popcount(bits) & 1) << 7));
}

// iq4_nl and iq4_xs: value of each 4-bit code.
constexpr std::array<int8_t, 16> kIq4Values = {-127, -104, -83, -65, -49, -35, -22, -10,
                                               1,    13,   25,  38,  53,  69,  89,  113};
// mxfp4: twice the E2M1 value of each 4-bit code (OCP Microscaling Formats v1.0).
constexpr std::array<int8_t, 16> kMxfp4Values = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

}  // namespace qkv
