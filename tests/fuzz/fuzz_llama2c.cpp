// Any bytes as a .bin file of llama2.c: refused with Error, or every tensor can be read from within the file.
#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "qkv/core/error.h"
#include "qkv/formats/llama2c.h"

namespace {

void read_all(std::span<const std::byte> file) {
  try {
    const auto layout = qkv::parse_llama2c(file, "input");
    for (size_t i = 0; i < layout.entries.size(); ++i) {
      std::vector<float> values(static_cast<size_t>(layout.entries[i].shape.elements()));
      qkv::read_llama2c_tensor(file, layout, i, values, "input");
    }
  } catch (const qkv::Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const std::byte> file(reinterpret_cast<const std::byte*>(data), size);
  qkv::looks_like_llama2c(file);
  read_all(file);
  // A size that agrees with the header is not found by chance: the file is made as long as its header asks
  // for, if that is little.
  constexpr uint64_t kLimit = 1 << 16;
  std::vector<std::byte> fitting(file.begin(), file.end());
  fitting.resize(std::min(kLimit, qkv::llama2c_file_bytes(file)));
  read_all(fitting);
  return 0;
}
