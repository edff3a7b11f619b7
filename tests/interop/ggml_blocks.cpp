// Holds the block kernels of every instruction set to ggml's own, loaded from its shared library:
// dequantization and plain rounding must agree in every bit.
//
//   interop_ggml_blocks LIBGGML_BASE [MODEL.gguf ...]     compares on random blocks, and on the models'
//   tensors interop_ggml_blocks LIBGGML_BASE --golden FILE        writes
//   tests/golden/blocks/blocks.safetensors
#include <dlfcn.h>

#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "qkv/core/error.h"
#include "qkv/formats/checkpoint.h"
#include "qkv/formats/safetensors.h"
#include "qkv/kernels/kernels.h"
#include "tests/support/random_blocks.h"

namespace qkv::test {
namespace {

using Dequantize = void (*)(const void*, float*, int64_t);
using Quantize = void (*)(const float*, void*, int64_t);

class Ggml {
 public:
  explicit Ggml(const char* path) : library_(::dlopen(path, RTLD_NOW)) {
    require(library_ != nullptr, "{}: {}", path, ::dlerror());
  }
  // Null if ggml has none (q8_1 is never dequantized).
  Dequantize dequantize(BlockType type) const {
    return find<Dequantize>("dequantize_row_" + ggml_name(type));
  }
  Quantize quantize(BlockType type) const {
    return find<Quantize>("quantize_row_" + ggml_name(type) + "_ref");
  }

 private:
  static std::string ggml_name(BlockType type) {
    std::string name = name_of(type);
    if (name.ends_with("_k")) name.back() = 'K';
    return name;
  }
  template <typename Function>
  Function find(const std::string& name) const {
    return reinterpret_cast<Function>(::dlsym(library_, name.c_str()));
  }
  void* library_;
};

int failures = 0;

template <typename T>
void compare(const std::string& what, const std::vector<T>& found, const std::vector<T>& expected) {
  for (size_t i = 0; i < expected.size(); ++i) {
    if (std::memcmp(&found[i], &expected[i], sizeof(T)) != 0) {
      std::printf("FAIL %s: element %zu of %zu: expected %a, found %a\n", what.c_str(), i, expected.size(),
                  static_cast<double>(expected[i]), static_cast<double>(found[i]));
      ++failures;
      return;
    }
  }
}

void compare_dequantize(const Ggml& ggml, BlockType type, const void* blocks, int64_t n,
                        const std::string& what) {
  const Dequantize reference = ggml.dequantize(type);
  if (reference == nullptr) {
    require(type == BlockType::q8_1, "{}: ggml has no dequantize_row", name_of(type));
    return;
  }
  std::vector<float> expected(static_cast<size_t>(n)), found(expected.size());
  reference(blocks, expected.data(), n);
  for (Isa isa : available_isas()) {
    kernels_for(isa).blocks.dequantize[type](blocks, found.data(), n);
    compare(std::string(name_of(type)) + " to float, " + what + ", " + isa_name(isa), found, expected);
  }
}

// Values that meet ties, clamps, either sign of the extreme and scales over 30 orders of magnitude.
std::vector<float> values_to_round(int64_t n, uint64_t seed) {
  Rng rng(seed);
  std::vector<float> x(static_cast<size_t>(n));
  for (size_t i = 0; i < x.size(); ++i) x[i] = rng.normal();
  for (size_t block = 0; block * 256 < x.size(); ++block) {
    const float scale = std::exp(8 * rng.normal());
    for (size_t i = block * 256; i < std::min(x.size(), (block + 1) * 256); ++i) {
      switch (block % 8) {
        case 1:
          x[i] = std::round(8 * x[i]);
          break;  // exact ties
        case 2:
          x[i] = std::abs(x[i]) * scale;
          break;  // one sign
        case 3:
          x[i] = -std::abs(x[i]) * scale;
          break;
        case 4:
          x[i] = i % 16 == 0 ? 10 * x[i] : 0.001f * x[i];
          break;  // outliers
        default:
          x[i] *= scale;
      }
    }
  }
  return x;
}

void compare_quantize(const Ggml& ggml, BlockType type, const std::vector<float>& x) {
  const int64_t n = static_cast<int64_t>(x.size());
  std::vector<uint8_t> expected(static_cast<size_t>(n / block_length(type) * block_bytes(type))),
      found(expected.size());
  const Quantize reference = ggml.quantize(type);
  require(reference != nullptr, "{}: ggml has no quantize_row_ref", name_of(type));
  reference(x.data(), expected.data(), n);
  for (Isa isa : available_isas()) {
    kernels_for(isa).blocks.quantize[type](x.data(), found.data(), n);
    compare(std::string("float to ") + name_of(type) + ", " + isa_name(isa), found, expected);
  }
}

void compare_models(const Ggml& ggml, const std::string& path) {
  const auto checkpoint = open_checkpoint(path);
  for (const auto& entry : checkpoint->entries()) {
    if (const auto type = block_type(entry.type)) {
      compare_dequantize(ggml, *type, checkpoint->read(entry.name).raw(), entry.shape.elements(), entry.name);
    }
  }
}

// A few blocks of each type with ggml's values, and values with ggml's roundings.
void write_golden(const Ggml& ggml, const std::string& path) {
  std::vector<std::pair<std::string, Tensor>> tensors;
  const std::vector<float> x = values_to_round(8 * 256, 3);
  tensors.emplace_back("values_to_round", Tensor::from(x, {static_cast<int64_t>(x.size())}));
  for (BlockType type : all_block_types()) {
    const int64_t count = block_length(type) == kSmallBlock ? 6 : 3, n = count * block_length(type);
    if (const Dequantize reference = ggml.dequantize(type)) {
      const std::vector<uint8_t> blocks = random_blocks(type, count, 7);
      std::vector<float> values(static_cast<size_t>(n));
      reference(blocks.data(), values.data(), n);
      tensors.emplace_back(std::string(name_of(type)) + ".blocks",
                           Tensor::from(blocks, {static_cast<int64_t>(blocks.size())}));
      tensors.emplace_back(std::string(name_of(type)) + ".values", Tensor::from(values, {n}));
    }
    if (kernels().blocks.quantize[type] != nullptr) {
      const auto bytes = static_cast<int64_t>(x.size()) / block_length(type) * block_bytes(type);
      std::vector<uint8_t> rounded(static_cast<size_t>(bytes));
      ggml.quantize(type)(x.data(), rounded.data(), static_cast<int64_t>(x.size()));
      tensors.emplace_back(std::string(name_of(type)) + ".rounded", Tensor::from(rounded, {bytes}));
    }
  }
  std::vector<TensorEntry> entries;
  for (const auto& [name, tensor] : tensors) entries.push_back({name, tensor.dtype(), tensor.shape()});
  SafetensorsWriter writer(path, entries, TensorOrder::aligned, {});
  for (const auto& entry : writer.entries()) {
    for (const auto& [name, tensor] : tensors) {
      if (name == entry.name) writer.write(name, tensor);
    }
  }
  writer.finish();
}

int run(int argc, char** argv) {
  require(argc >= 2, "usage: {} LIBGGML_BASE [MODEL.gguf ... | --golden FILE]", argv[0]);
  const Ggml ggml(argv[1]);
  if (argc == 4 && std::string(argv[2]) == "--golden") {
    write_golden(ggml, argv[3]);
    return 0;
  }
  constexpr int64_t count = 4096;  // every entry of every codebook many times
  for (BlockType type : all_block_types()) {
    const std::vector<uint8_t> blocks = random_blocks(type, count, 1);
    compare_dequantize(ggml, type, blocks.data(), count * block_length(type), "random blocks");
    if (kernels().blocks.quantize[type] != nullptr)
      compare_quantize(ggml, type, values_to_round(count * 256, 2));
  }
  for (int i = 2; i < argc; ++i) compare_models(ggml, argv[i]);
  if (failures == 0)
    std::printf("blocks equal ggml's in every bit: %d types, %d models\n", kBlockTypeCount, argc - 2);
  return failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace qkv::test

int main(int argc, char** argv) {
  try {
    return qkv::test::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
}
