// The table of single-file checkpoint formats that open_checkpoint() goes through. A format is added by one
// row in checkpoint_formats.cpp.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "qkv/formats/checkpoint.h"

namespace qkv {

struct CheckpointFormat {
  std::string_view description;  // "a .safetensors file": in the list of what is supported
  // ".safetensors": a file that no format recognizes is still opened as what its name says, so that the error
  // names the defect. Empty if several formats share the name.
  std::string_view extension;
  // Whether the whole file (mapped; look at the beginning only) is of this format.
  bool (*recognizes)(std::span<const std::byte> bytes);
  std::unique_ptr<Checkpoint> (*open)(const std::string& path);
};

// In the order in which they are tried.
std::span<const CheckpointFormat> checkpoint_formats();

}  // namespace qkv
