// The codebooks of the IQ types as the search wants them: floats, dimension by dimension.
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
  std::vector<float> values, squares;  // (dims, entries)
};

// The entries with `shift` added to every value.
template <class Book>
SearchGrid search_grid(const Book& codebook, float shift = 0) {
  static_assert(std::tuple_size_v<Book> % kGroupLanes == 0);
  constexpr size_t width = std::tuple_size_v<typename Book::value_type>;
  SearchGrid grid = {static_cast<int>(width), static_cast<int>(codebook.size()), {}, {}};
  for (size_t i = 0; i < width; ++i) {
    for (const auto& entry : codebook) {
      const float value = static_cast<float>(entry[i]) + shift;
      grid.values.push_back(value);
      grid.squares.push_back(value * value);
    }
  }
  return grid;
}

}  // namespace qkv
