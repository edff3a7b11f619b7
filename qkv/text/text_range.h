// A piece of a text, by its bytes.
#pragma once

#include <cstddef>

namespace qkv {

struct TextRange {
  size_t begin = 0;
  size_t end = 0;
};

}  // namespace qkv
