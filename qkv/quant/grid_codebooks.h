// The codebooks of the IQ types as the search wants them: floats, in the order in which they are read.
#pragma once

#include <array>
#include <cstddef>
#include <tuple>
#include <vector>

#include "qkv/kernels/block_codebooks.h"
#include "qkv/kernels/quantize_kernels.h"

namespace qkv {

struct SearchGrid {
  int dims = 0, entries = 0;
  std::vector<float> values, squares;  // in tiles, as QuantizeKernels::grid_products has them
};

// The entries with `shift` added to every value.
template <class Book>
SearchGrid search_grid(const Book& codebook, float shift = 0) {
  static_assert(std::tuple_size_v<Book> % kGroupLanes == 0);
  constexpr size_t width = std::tuple_size_v<typename Book::value_type>;
  SearchGrid grid = {static_cast<int>(width), static_cast<int>(codebook.size()), {}, {}};
  for (size_t tile = 0; tile < codebook.size(); tile += kGroupLanes) {
    for (size_t i = 0; i < width; ++i) {
      for (size_t e = tile; e < tile + kGroupLanes; ++e) {
        const float value = static_cast<float>(codebook[e][i]) + shift;
        grid.values.push_back(value);
        grid.squares.push_back(value * value);
      }
    }
  }
  return grid;
}

}  // namespace qkv
