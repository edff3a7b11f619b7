// Importances: for every matrix the mean square of each of its inputs over a calibration text. Reads and
// writes llama.cpp's importance matrices, the older .dat and GGUF.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "qkv/formats/checkpoint.h"

namespace qkv {

struct Importance {
  struct Matrix {
    // (experts, columns) sums of squared inputs; one "expert" for what is no expert.
    std::vector<float> sums;
    std::vector<int64_t> counts;  // tokens of each expert
    // (experts, columns) means of squares; 1 for experts that saw no token.
    std::vector<float> means() const;
  };
  std::map<std::string, Matrix> matrices;  // by GGUF's tensor name
  std::vector<std::string> datasets;       // the texts, as named
  int64_t chunk_tokens = 512, chunks = 0;

  // Error unless every matrix is one of these tensors and has as many columns (and experts): an importance
  // matrix says nothing about another model.
  void require_of(const std::vector<TensorEntry>& tensors, const std::string& where) const;
};

// A file in either form, by its content. Error for a damaged one and for values that are negative or not
// finite.
Importance read_importance(const std::string& path);
// *.dat: the older form; anything else GGUF.
void write_importance(const std::string& path, const Importance& importance);

}  // namespace qkv
