// What the interoperability tests of file formats drive: prints the tensors of a checkpoint, and writes one
// of known tensors.
//
//   interop_formats dump PATH                a line per tensor: name, type, shape, the bytes in hexadecimal
//   interop_formats write pt|safetensors OUT
#include <fmt/format.h>

#include <cstdio>
#include <numeric>
#include <string>

#include "qkv/core/error.h"
#include "qkv/formats/pytorch.h"
#include "qkv/formats/safetensors.h"

namespace {

using qkv::DType;
using qkv::Shape;

void dump(const std::string& path) {
  const auto checkpoint = qkv::open_checkpoint(path);
  for (const auto& entry : checkpoint->entries()) {
    const qkv::Tensor tensor = checkpoint->read(entry.name);
    std::string hexadecimal;
    for (uint64_t i = 0; i < tensor.bytes(); ++i)
      hexadecimal += fmt::format("{:02x}", static_cast<unsigned>(tensor.raw()[i]));
    fmt::print("{}\t{}\t{}\t{}\n", entry.name, name(entry.type), fmt::join(entry.shape.dims(), ","),
               hexadecimal);
  }
}

// Byte i of the tensor at `position` in the list is 3 i + position modulo 64; of a truth value, that
// modulo 2. (No pattern of them is a NaN.)
template <typename Writer>
void write(Writer writer) {
  int position = 0;
  for (const auto& entry : std::vector<qkv::TensorEntry>(writer.entries())) {
    qkv::Tensor tensor = qkv::Tensor::empty(entry.shape, entry.type);
    const uint64_t modulus = entry.type == DType::boolean ? 2 : 64;
    for (uint64_t i = 0; i < tensor.bytes(); ++i)
      tensor.raw()[i] = static_cast<std::byte>((3 * i + static_cast<uint64_t>(position)) % modulus);
    writer.write(entry.name, tensor);
    ++position;
  }
  writer.finish();
}

std::vector<qkv::TensorEntry> known_entries() {
  return {{"model.f32", DType::f32, Shape{3, 5}},
          {"model.f64", DType::f64, Shape{2}},
          {"model.f16", DType::f16, Shape{4, 1, 2}},
          {"model.bf16", DType::bf16, Shape{2, 2, 2, 2}},
          {"model.i64", DType::i64, Shape{}},
          {"model.i32", DType::i32, Shape{300}},
          {"model.i16", DType::i16, Shape{3}},
          {"model.i8", DType::i8, Shape{70'000}},
          {"model.u8", DType::u8, Shape{1}},
          {"model.bool", DType::boolean, Shape{9}},
          {"gr\xc3\xb6\xc3\x9f"
           "e",
           DType::f32, Shape{0, 7}}};
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  try {
    if (arguments.size() == 2 && arguments[0] == "dump") {
      dump(arguments[1]);
    } else if (arguments.size() == 3 && arguments[0] == "write" && arguments[1] == "pt") {
      write(qkv::PytorchWriter(arguments[2], known_entries()));
    } else if (arguments.size() == 3 && arguments[0] == "write" && arguments[1] == "safetensors") {
      write(qkv::SafetensorsWriter(arguments[2], known_entries(), qkv::TensorOrder::given));
    } else {
      qkv::fail("usage: interop_formats dump PATH | write pt|safetensors OUT");
    }
  } catch (const qkv::Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 2;
  }
  return 0;
}
