// Any bytes as a safetensors file and as a shard index: accepted, or refused with Error; never a crash, a
// hang or a read outside of the file.
#include <cstdint>
#include <cstdlib>
#include <numeric>
#include <span>
#include <string_view>

#include "qkv/core/error.h"
#include "qkv/formats/hf_directory.h"
#include "qkv/formats/python_json.h"
#include "qkv/formats/safetensors_header.h"
#include "tests/fuzz/targets.h"

#include <nlohmann/json.hpp>

namespace {

// What was accepted must hold: every tensor inside of the file, and a header made from the entries reads back
// as they are.
void check_accepted(std::span<const std::byte> file, const qkv::SafetensorsHeader& header) {
  uint64_t sum = 0;
  for (size_t i = 0; i < header.entries.size(); ++i) {
    const auto data = file.subspan(header.offsets[i], header.entries[i].bytes);
    for (const std::byte byte : data) sum += static_cast<uint64_t>(byte);
  }
  volatile uint64_t used = sum;
  (void)used;
  const std::string again = qkv::make_safetensors_header(header.entries, {}, "again");
  uint64_t bytes = 0;
  for (const auto& entry : header.entries) bytes += entry.bytes;
  std::string copy = again + std::string(bytes, '\0');
  const auto second = qkv::parse_safetensors_header(std::as_bytes(std::span(copy)), "again");
  if (second.entries.size() != header.entries.size()) std::abort();
  for (size_t i = 0; i < second.entries.size(); ++i) {
    if (second.entries[i].type != header.entries[i].type ||
        !(second.entries[i].shape == header.entries[i].shape))
      std::abort();
  }
}

}  // namespace

using qkv::fuzz::attempt;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const std::byte> file(reinterpret_cast<const std::byte*>(data), size);
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  attempt([&] { check_accepted(file, qkv::parse_safetensors_header(file, "input")); });
  attempt([&] { qkv::parse_weight_map(text, "input"); });
  attempt([&] { qkv::parse_python_json(text, "input"); });
  return 0;
}
