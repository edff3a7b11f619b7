// --adapter, of every verb that runs a model.
#pragma once

#include <string>
#include <vector>

#include "qkv/models/bundle.h"

namespace CLI {
class App;
}

namespace qkv {

struct AdapterFlags {
  std::vector<std::string> adapters;

  void add_to(CLI::App& command);
  // Error if one is not PATH or PATH=SCALE.
  std::vector<AdapterRequest> requests() const;
};

}  // namespace qkv
