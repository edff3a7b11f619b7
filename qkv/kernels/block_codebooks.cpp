// Expands the packed codebooks at compile time.
#include "qkv/kernels/block_codebooks.h"

#include <cstddef>

namespace qkv {
namespace {

#include "qkv/kernels/block_codebooks.inl"

template <typename Value, int width, int bits, int entries, size_t levels>
constexpr Codebook<Value, width, entries> expand(const uint16_t (&codes)[entries],
                                                 const std::array<Value, levels>& values) {
  Codebook<Value, width, entries> grid{};
  for (size_t e = 0; e < static_cast<size_t>(entries); ++e) {
    for (size_t i = 0; i < static_cast<size_t>(width); ++i) {
      grid[e][i] = values[(codes[e] >> (bits * i)) & ((1u << bits) - 1)];
    }
  }
  return grid;
}

constexpr std::array<uint8_t, 3> kIq2Levels = {8, 25, 43};
constexpr std::array<uint8_t, 8> kIq3XxsLevels = {4, 12, 20, 28, 36, 44, 52, 62};
constexpr std::array<uint8_t, 8> kIq3SLevels = {1, 3, 5, 7, 9, 11, 13, 15};
constexpr std::array<int8_t, 3> kIq1Levels = {-1, 0, 1};

}  // namespace

constexpr Codebook<uint8_t, 8, 256> kIq2XxsGrid = expand<uint8_t, 8, 2>(kIq2XxsCodes, kIq2Levels);
constexpr Codebook<uint8_t, 8, 512> kIq2XsGrid = expand<uint8_t, 8, 2>(kIq2XsCodes, kIq2Levels);
constexpr Codebook<uint8_t, 8, 1024> kIq2SGrid = expand<uint8_t, 8, 2>(kIq2SCodes, kIq2Levels);
constexpr Codebook<uint8_t, 4, 256> kIq3XxsGrid = expand<uint8_t, 4, 3>(kIq3XxsCodes, kIq3XxsLevels);
constexpr Codebook<uint8_t, 4, 512> kIq3SGrid = expand<uint8_t, 4, 3>(kIq3SCodes, kIq3SLevels);
constexpr Codebook<int8_t, 8, 2048> kIq1Grid = expand<int8_t, 8, 2>(kIq1Codes, kIq1Levels);

}  // namespace qkv
