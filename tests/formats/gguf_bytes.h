// GGUF files made byte by byte after the specification, without the code under test.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tests/formats/binary_bytes.h"

namespace qkv::test {

// The pieces of a GGUF file: give() puts them together.
struct GgufParts {
  std::string magic = "GGUF";
  uint32_t version = 3;
  std::vector<std::string> pairs;    // key, type id, value
  std::vector<std::string> tensors;  // name, dimensions, type id, offset
  size_t alignment = 32;
  std::string data;
  // What the header says, where it is to differ.
  int64_t tensor_count = -1;
  int64_t pair_count = -1;

  std::string give() const {
    Bytes bytes;
    bytes.raw(magic).u32(version);
    bytes.u64(tensor_count < 0 ? tensors.size() : static_cast<uint64_t>(tensor_count));
    bytes.u64(pair_count < 0 ? pairs.size() : static_cast<uint64_t>(pair_count));
    for (const auto& pair : pairs) bytes.raw(pair);
    for (const auto& tensor : tensors) bytes.raw(tensor);
    if (!tensors.empty()) bytes.align(alignment);
    return bytes.raw(data).str();
  }
};

// The record of a tensor; dimensions as in the file, the fastest first.
inline std::string gguf_tensor(std::string_view name, const std::vector<uint64_t>& dims, uint32_t type,
                               uint64_t offset) {
  Bytes bytes;
  bytes.text(name).u32(static_cast<uint32_t>(dims.size()));
  for (const uint64_t dim : dims) bytes.u64(dim);
  return bytes.u32(type).u64(offset).str();
}

inline std::string gguf_pair(std::string_view key, uint32_t type, const Bytes& value) {
  return Bytes().text(key).u32(type).raw(value.str()).str();
}

// One value of every type, a list of every type, and two tensors.
inline GgufParts small_gguf() {
  GgufParts parts;
  parts.pairs = {
      gguf_pair("general.architecture", 8, Bytes().text("llama")),
      gguf_pair("u8", 0, Bytes().u8(255)),
      gguf_pair("i8", 1, Bytes().u8(0xfe)),
      gguf_pair("u16", 2, Bytes().u16(65535)),
      gguf_pair("i16", 3, Bytes().u16(0xfffd)),
      gguf_pair("u32", 4, Bytes().u32(4'000'000'000)),
      gguf_pair("i32", 5, Bytes().i32(-4)),
      gguf_pair("f32", 6, Bytes().f32(0.1f)),
      gguf_pair("bool", 7, Bytes().u8(1)),
      gguf_pair("u64", 10, Bytes().u64(~uint64_t{0})),
      gguf_pair("i64", 11, Bytes().add<int64_t>(-5)),
      gguf_pair("f64", 12, Bytes().add(0.2)),
      gguf_pair("bytes", 9, Bytes().u32(0).u64(2).u8(7).u8(8)),
      gguf_pair("flags", 9, Bytes().u32(7).u64(3).u8(1).u8(0).u8(1)),
      gguf_pair("tokens", 9, Bytes().u32(8).u64(3).text("a").text("").text(std::string("b\0c", 3))),
      gguf_pair("scores", 9, Bytes().u32(6).u64(2).f32(-1).f32(0.5f)),
      gguf_pair("types", 9, Bytes().u32(5).u64(1).i32(-3)),
      gguf_pair("none", 9, Bytes().u32(8).u64(0)),
  };
  Bytes data;
  for (int i = 0; i < 6; ++i) data.f32(static_cast<float>(i));
  data.align(32);
  data.raw(std::string("\x01\x3c", 2));  // a Q8_0 block: the scale, 32 codes
  for (int i = 0; i < 32; ++i) data.u8(static_cast<uint8_t>(i));
  data.align(32);
  parts.tensors = {gguf_tensor("a", {3, 2}, 0, 0), gguf_tensor("blk.0.b", {32}, 8, 32)};
  parts.data = data.str();
  return parts;
}

}  // namespace qkv::test
