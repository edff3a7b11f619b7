// Flags about what sequences remember, shared by all verbs that generate or measure generation.
#pragma once

#include <cstdint>
#include <string>

#include "qkv/nn/state.h"

namespace CLI {
class App;
}

namespace qkv {

struct CacheFlags {
  std::string k_type = "auto", v_type = "auto";
  bool rotate_k = false;
  int64_t window = 0, sinks = -1;

  void add_to(CLI::App& command);
  // Whether any of them is given: then what a verb measures is to be read token by token.
  bool any() const;
  // "auto" is the type of activations. Error naming the flag that is wrong.
  CacheOptions options(DType compute_type) const;
};

// "f32", or "q8_0 keys, f16 values".
std::string cache_sentence(const CacheOptions& options);

}  // namespace qkv
