// Safetensors files made byte by byte, right and wrong, without the code under test.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace qkv::test {

// The length, the header exactly as given, the data.
inline std::string safetensors_bytes(std::string_view header, std::string_view data) {
  std::string file;
  for (int i = 0; i < 8; ++i)
    file += static_cast<char>(static_cast<uint64_t>(header.size()) >> (8 * i) & 0xff);
  file += header;
  file += data;
  return file;
}

// Two tensors: "a", f32 (2, 3) holding 0..5, and "b", u8 (4) holding 1..4, with a header padded to 8 bytes.
inline std::string small_safetensors() {
  std::string header =
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
      R"("b":{"dtype":"U8","shape":[4],"data_offsets":[24,28]}})";
  header.append((8 - header.size() % 8) % 8, ' ');
  std::string data;
  for (int i = 0; i < 6; ++i) {
    const float value = static_cast<float>(i);
    data.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  data += std::string("\x01\x02\x03\x04", 4);
  return safetensors_bytes(header, data);
}

}  // namespace qkv::test
