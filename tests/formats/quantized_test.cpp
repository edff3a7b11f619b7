// Quantized checkpoints, packed here by the descriptions of the libraries that write them. The reference
// values in tests/golden/formats/quantized.safetensors were made by those libraries' own code
// (make_quantized.py).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "qkv/core/atomic_file.h"
#include "qkv/core/error.h"
#include "qkv/core/rng.h"
#include "qkv/formats/checkpoint.h"
#include "qkv/formats/quantized/scheme.h"
#include "qkv/formats/safetensors.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

using test::error_of;
using ::testing::HasSubstr;

using Named = std::vector<std::pair<std::string, Tensor>>;

// A Hugging Face directory of these tensors.
void write_model(const test::TemporaryDirectory& dir, const Named& tensors, const std::string& quantization,
                 const std::string& model_type = "llama") {
  std::vector<TensorEntry> entries;
  for (const auto& [name, tensor] : tensors) entries.push_back({name, tensor.dtype(), tensor.shape()});
  SafetensorsWriter writer(dir / "model.safetensors", entries, TensorOrder::given);
  for (const auto& [name, tensor] : tensors) writer.write(name, tensor);
  writer.finish();
  write_file(dir / "config.json", fmt::format(R"({{"model_type":"{}","quantization_config":{},"layers":1}})",
                                              model_type, quantization));
}

Tensor weight_of(const Named& tensors, const std::string& quantization) {
  test::TemporaryDirectory dir;
  write_model(dir, tensors, quantization);
  return open_checkpoint(dir.path())->read("m.weight").clone();
}

// The errors of opening and reading.
std::string refusal(const Named& tensors, const std::string& quantization) {
  test::TemporaryDirectory dir;
  write_model(dir, tensors, quantization);
  const std::string error = error_of([&] {
    const auto model = open_checkpoint(dir.path());
    for (const auto& entry : model->entries()) model->read(entry.name);
  });
  const size_t path = error.find(dir.path() + ": ");
  return path == std::string::npos ? error
                                   : error.substr(0, path) + error.substr(path + dir.path().size() + 2);
}

Tensor f32(const std::vector<float>& values, Shape shape) {
  return Tensor::from(values, shape);
}
Tensor i32(const std::vector<int32_t>& values, Shape shape) {
  return Tensor::from(values, shape);
}
Tensor bytes(std::string_view values, Shape shape, DType type = DType::u8) {
  Tensor tensor = Tensor::empty(shape, type);
  EXPECT_EQ(tensor.bytes(), values.size());
  std::copy_n(reinterpret_cast<const std::byte*>(values.data()), values.size(), tensor.raw());
  return tensor;
}
template <typename T>
Tensor raw(const std::vector<T>& values, Shape shape, DType type) {
  return bytes({reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)}, shape, type);
}

// Codes one after the other, bit by bit from the lowest bit of the first word up.
std::vector<int32_t> pack(const std::vector<int>& codes, int bits) {
  std::vector<uint32_t> words((codes.size() * static_cast<size_t>(bits) + 31) / 32);
  for (size_t i = 0; i < codes.size(); ++i) {
    for (size_t bit = 0; bit < static_cast<size_t>(bits); ++bit) {
      const size_t position = i * static_cast<size_t>(bits) + bit;
      words[position / 32] |= (static_cast<uint32_t>(codes[i]) >> bit & 1u) << position % 32;
    }
  }
  return {words.begin(), words.end()};
}

// A matrix of codes (rows, cols), each column packed: (words, cols).
Tensor packed_columns(const std::vector<int>& codes, int64_t rows, int64_t cols, int bits) {
  std::vector<int32_t> words;
  int64_t height = 0;
  for (int64_t col = 0; col < cols; ++col) {
    std::vector<int> column;
    for (int64_t row = 0; row < rows; ++row) column.push_back(codes[static_cast<size_t>(row * cols + col)]);
    const auto packed = pack(column, bits);
    height = static_cast<int64_t>(packed.size());
    words.resize(static_cast<size_t>(height * cols));
    for (int64_t i = 0; i < height; ++i)
      words[static_cast<size_t>(i * cols + col)] = packed[static_cast<size_t>(i)];
  }
  return i32(words, Shape{height, cols});
}
// Each row packed: (rows, words).
Tensor packed_rows(const std::vector<int>& codes, int64_t rows, int64_t cols, int bits) {
  std::vector<int32_t> words;
  for (int64_t row = 0; row < rows; ++row) {
    const auto packed = pack({codes.begin() + row * cols, codes.begin() + (row + 1) * cols}, bits);
    words.insert(words.end(), packed.begin(), packed.end());
  }
  const auto width = static_cast<int64_t>(words.size()) / rows;
  return i32(words, Shape{rows, width});
}

std::vector<int> transposed(const std::vector<int>& values, int64_t rows, int64_t cols) {
  std::vector<int> result;
  for (int64_t col = 0; col < cols; ++col)
    for (int64_t row = 0; row < rows; ++row) result.push_back(values[static_cast<size_t>(row * cols + col)]);
  return result;
}

std::vector<int> random_codes(int64_t count, int bits, uint64_t seed) {
  Rng rng(seed);
  std::vector<int> codes;
  for (int64_t i = 0; i < count; ++i) codes.push_back(static_cast<int>(rng.uniform() * (1 << bits)));
  return codes;
}
std::vector<float> random_scales(int64_t count, uint64_t seed) {
  Rng rng(seed);
  std::vector<float> scales;
  for (int64_t i = 0; i < count; ++i) scales.push_back(static_cast<float>(rng.uniform()) + 0.01f);
  return scales;
}

class Golden {
 public:
  Tensor tensor(const std::string& name) const { return file_.read(name); }
  std::vector<float> floats(const std::string& name) const { return tensor(name).to_floats(); }
  std::vector<int> integers(const std::string& name) const {
    const auto values = floats(name);
    return {values.begin(), values.end()};
  }

 private:
  SafetensorsFile file_{test::golden("formats/quantized.safetensors")};
};

// Three roundings to f32 lie between the two: the scale's, the product's and the reference's.
void expect_near_reference(const Tensor& weight, const std::vector<float>& reference) {
  const auto values = weight.to_floats();
  ASSERT_EQ(values.size(), reference.size());
  for (size_t i = 0; i < values.size(); ++i)
    EXPECT_LE(std::abs(values[i] - reference[i]), std::abs(reference[i]) * 3 * 0x1p-24f) << i;
}

constexpr char kGptq[] = R"({"quant_method":"gptq","bits":4,"group_size":32,"desc_act":true,"sym":true})";

TEST(Gptq, GivesTheReferencesWeights) {
  const Golden golden;
  for (const std::string group : {"gptq_actorder", "gptq_asym"}) {
    const auto codes = golden.integers(group + ".codes");
    std::vector<int> zeros = golden.integers(group + ".zero");
    const auto scales = golden.tensor(group + ".scale");  // (32 outputs, 2 groups)
    std::vector<float> turned;
    for (size_t g = 0; g < 2; ++g)
      for (size_t o = 0; o < 32; ++o) turned.push_back(scales.to_floats()[o * 2 + g]);
    for (const bool is_v2 : {false, true}) {
      std::vector<int> stored = transposed(zeros, 32, 2);
      for (int& zero : stored) zero = is_v2 ? zero : (zero + 15) % 16;  // minus 1
      const Named tensors = {{"m.qweight", packed_columns(transposed(codes, 32, 64), 64, 32, 4)},
                             {"m.qzeros", packed_rows(stored, 2, 32, 4)},
                             {"m.scales", f32(turned, Shape{2, 32})},
                             {"m.g_idx", golden.tensor(group + ".g_idx").clone()}};
      std::string config = kGptq;
      if (is_v2) config.insert(1, R"("checkpoint_format":"gptq_v2",)");
      const Tensor weight = weight_of(tensors, config);
      EXPECT_EQ(weight.shape(), (Shape{32, 64}));
      expect_near_reference(weight, golden.floats(group + ".dequant"));
    }
  }
}

// As AutoGPTQ's pack() has it, word by word: ten codes, one across the border, ten, one across, ten.
TEST(Gptq, ThreeBitCodesCrossWordsAsInAutoGptq) {
  const auto codes = random_codes(32, 3, 5);
  std::array<uint32_t, 3> words = {};
  const auto code = [&](int i) { return static_cast<uint32_t>(codes[static_cast<size_t>(i)]); };
  for (int j = 0; j < 10; ++j) words[0] |= code(j) << (3 * j);
  words[0] |= code(10) << 30;
  words[1] |= code(10) >> 2 & 1;
  for (int j = 11; j < 21; ++j) words[1] |= code(j) << (3 * (j - 11) + 1);
  words[1] |= code(21) << 31;
  words[2] |= code(21) >> 1 & 3;
  for (int j = 22; j < 32; ++j) words[2] |= code(j) << (3 * (j - 22) + 2);
  const std::array<int32_t, 3> stored = {static_cast<int32_t>(words[0]), static_cast<int32_t>(words[1]),
                                         static_cast<int32_t>(words[2])};
  for (int i = 0; i < 32; ++i) EXPECT_EQ(packed_code(stored.data(), 1, i, 3), code(i)) << i;
}

TEST(Gptq, ReadsEveryNumberOfBits) {
  for (const int bits : {2, 3, 4, 8}) {
    for (const int64_t group_size : {int64_t{-1}, int64_t{16}}) {
      constexpr int64_t kInputs = 64;
      constexpr int64_t kOutputs = 32;
      const int64_t groups = group_size < 0 ? 1 : kInputs / group_size;
      const auto codes = random_codes(kInputs * kOutputs, bits, 1);  // (inputs, outputs)
      const auto zeros = random_codes(groups * kOutputs, bits, 2);   // as they are stored
      const auto scales = random_scales(groups * kOutputs, 3);
      const Named tensors = {{"m.qweight", packed_columns(codes, kInputs, kOutputs, bits)},
                             {"m.qzeros", packed_rows(zeros, groups, kOutputs, bits)},
                             {"m.scales", f32(scales, Shape{groups, kOutputs}).to(DType::f16)}};
      const Tensor weight = weight_of(
          tensors, fmt::format(R"({{"quant_method":"gptq","bits":{},"group_size":{}}})", bits, group_size));
      ASSERT_EQ(weight.shape(), (Shape{kOutputs, kInputs}));
      const auto rounded = f32(scales, Shape{groups, kOutputs}).to(DType::f16).to_floats();
      for (int64_t o = 0; o < kOutputs; ++o) {
        for (int64_t i = 0; i < kInputs; ++i) {
          const auto g = static_cast<size_t>((group_size < 0 ? 0 : i / group_size) * kOutputs + o);
          const int zero = (zeros[g] + 1) % (1 << bits);
          // A scale of 11 bits times a difference of 9: exact.
          EXPECT_EQ(weight.span<float>()[static_cast<size_t>(o * kInputs + i)],
                    rounded[g] * static_cast<float>(codes[static_cast<size_t>(i * kOutputs + o)] - zero));
        }
      }
    }
  }
}

Named small_gptq() {
  return {{"m.qweight", i32(std::vector<int32_t>(8 * 8, 0x11111111), Shape{8, 8})},
          {"m.qzeros", i32(std::vector<int32_t>(2, 0), Shape{2, 1})},
          {"m.scales", f32(std::vector<float>(16, 1), Shape{2, 8})}};
}
constexpr char kSmallGptq[] = R"({"quant_method":"gptq","bits":4,"group_size":32})";

TEST(Gptq, SaysWhatDoesNotFit) {
  EXPECT_EQ(refusal(small_gptq(), kSmallGptq), "(no error)");
  EXPECT_EQ(refusal(small_gptq(), R"({"quant_method":"gptq","checkpoint_format":"marlin"})"),
            "[gptq] checkpoint_format: expected gptq or gptq_v2, found 'marlin'");
  EXPECT_EQ(refusal(small_gptq(), R"({"quant_method":"gptq","desc_act":true})"),
            "[gptq] module 'm': expected a tensor 'g_idx' (desc_act is true), found none");
  EXPECT_EQ(refusal(small_gptq(), R"({"quant_method":"gptq","group_size":16})"),
            "[gptq] module 'm': expected 4 groups of 16 for 64 inputs, found 2");
  const auto with = [](const std::string& name, const Tensor& tensor) {
    Named tensors = small_gptq();
    for (auto& [key, value] : tensors) {
      if (key == name) value = tensor;
    }
    if (name == "m.g_idx") tensors.emplace_back(name, tensor);
    return refusal(tensors, kSmallGptq);
  };
  EXPECT_EQ(with("m.qweight", f32(std::vector<float>(64), Shape{8, 8})),
            "[gptq] tensor 'm.qweight': expected i32, found f32");
  EXPECT_EQ(with("m.qweight", i32(std::vector<int32_t>(64), Shape{64})),
            "[gptq] tensor 'm.qweight': expected a matrix, found the shape (64)");
  EXPECT_EQ(with("m.qweight", i32({}, Shape{0, 8})),
            "[gptq] tensor 'm.qweight': expected a matrix, found the shape (0, 8)");
  EXPECT_EQ(with("m.scales", f32(std::vector<float>(18), Shape{2, 9})),
            "[gptq] tensor 'm.scales': expected the shape (2, 8), found (2, 9)");
  EXPECT_EQ(with("m.qzeros", i32(std::vector<int32_t>(6), Shape{2, 3})),
            "[gptq] module 'm': qzeros: expected 2 rows with zero points of 2, 3, 4 or 8 bits for 8 outputs, "
            "found (2, 3)");
  EXPECT_EQ(with("m.g_idx", i32(std::vector<int32_t>(64, 2), Shape{64})),
            "[gptq] module 'm': g_idx: expected groups from 0 to 1, found 2");
  EXPECT_EQ(with("m.g_idx", i32(std::vector<int32_t>(63), Shape{63})), "(no error)")
      << "the last code is padding";
  EXPECT_EQ(with("m.g_idx", i32(std::vector<int32_t>(33), Shape{33})),
            "[gptq] tensor 'm.qweight': expected the shape (5, 8), found (8, 8)");
  Named missing = small_gptq();
  missing.pop_back();
  EXPECT_EQ(refusal(missing, kSmallGptq),
            "[gptq] module 'm': expected a tensor 'scales' beside its others, found none");
}

TEST(Gptq, TurnsTheLayersOfGpt2) {
  test::TemporaryDirectory dir;
  const auto codes = random_codes(64 * 8, 4, 1);
  Named tensors = small_gptq();
  tensors[0].second = packed_columns(codes, 64, 8, 4);
  for (auto& [name, tensor] : tensors) name = "h.0.attn.c_attn" + name.substr(1);
  write_model(dir, tensors, kSmallGptq, "gpt2");
  const auto model = open_checkpoint(dir.path());
  EXPECT_EQ(model->find("h.0.attn.c_attn.weight")->shape, (Shape{64, 8})) << "(inputs, outputs)";
  const auto values = model->read("h.0.attn.c_attn.weight").to_floats();
  for (size_t i = 0; i < codes.size(); ++i) EXPECT_EQ(values[i], static_cast<float>(codes[i] - 1));
}

TEST(Gptq, TakesSettingsFromAutoGptqsOwnFile) {
  test::TemporaryDirectory dir;
  write_model(dir, small_gptq(), "null");
  EXPECT_EQ(open_checkpoint(dir.path())->find("m.weight"), nullptr);
  write_file(dir / "quantize_config.json", R"({"bits":4,"group_size":32,"desc_act":false})");
  EXPECT_NE(open_checkpoint(dir.path())->find("m.weight"), nullptr);
}

// Word by word as AutoAWQ's from_linear() has it.
Tensor awq_rows(const std::vector<int>& codes, int64_t rows, int64_t cols, std::array<int, 8> order) {
  std::vector<int32_t> words;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t word = 0; word < cols / 8; ++word) {
      uint32_t value = 0;
      for (size_t i = 0; i < 8; ++i)
        value |= static_cast<uint32_t>(codes[static_cast<size_t>(row * cols + word * 8 + order[i])])
                 << (4 * i);
      words.push_back(static_cast<int32_t>(value));
    }
  }
  return i32(words, Shape{rows, cols / 8});
}

constexpr std::array<int, 8> kAwqOrder = {0, 2, 4, 6, 1, 3, 5, 7};

TEST(Awq, GivesTheReferencesWeights) {
  const Golden golden;
  const auto codes = golden.integers("awq.codes");
  std::vector<float> scales;
  for (size_t g = 0; g < 2; ++g)
    for (size_t o = 0; o < 32; ++o) scales.push_back(golden.floats("awq.scale")[o * 2 + g]);
  const Named tensors = {
      {"m.qweight", awq_rows(transposed(codes, 32, 64), 64, 32, kAwqOrder)},
      {"m.qzeros", awq_rows(transposed(golden.integers("awq.zero"), 32, 2), 2, 32, kAwqOrder)},
      {"m.scales", f32(scales, Shape{2, 32})}};
  const Tensor weight = weight_of(
      tensors, R"({"quant_method":"awq","bits":4,"group_size":32,"version":"GEMM","zero_point":true})");
  EXPECT_EQ(weight.shape(), (Shape{32, 64}));
  expect_near_reference(weight, golden.floats("awq.dequant"));
}

TEST(Awq, ReadsTheLayoutOfGemv) {
  const Golden golden;
  const auto codes = golden.integers("awq.codes");
  std::vector<int> zeros(32 * 8);  // the width of zero points is padded to words
  std::vector<float> scales(32 * 8);
  for (size_t o = 0; o < 32; ++o) {
    for (size_t g = 0; g < 2; ++g) {
      zeros[o * 8 + g] = golden.integers("awq.zero")[o * 2 + g];
      scales[o * 8 + g] = golden.floats("awq.scale")[o * 2 + g];
    }
  }
  const Named tensors = {{"m.qweight", packed_rows(codes, 32, 64, 4)},
                         {"m.qzeros", packed_rows(zeros, 32, 8, 4)},
                         {"m.scales", f32(scales, Shape{32, 8})}};
  expect_near_reference(
      weight_of(tensors, R"({"quant_method":"awq","bits":4,"group_size":32,"version":"gemv"})"),
      golden.floats("awq.dequant"));
}

TEST(Awq, SaysWhatDoesNotFit) {
  const Named tensors = {{"m.qweight", i32(std::vector<int32_t>(64), Shape{64, 1})},
                         {"m.qzeros", i32(std::vector<int32_t>(2), Shape{2, 1})},
                         {"m.scales", f32(std::vector<float>(16), Shape{2, 8})}};
  EXPECT_EQ(refusal(tensors, R"({"quant_method":"awq"})"), "(no error)");
  EXPECT_EQ(refusal(tensors, R"({"quant_method":"awq","version":"marlin"})"),
            "[awq] version: expected gemm or gemv, found 'marlin'");
  EXPECT_EQ(refusal(tensors, R"({"quant_method":"awq","bits":8})"), "[awq] bits: expected 4, found 8");
  Named other = tensors;
  other[2].second = f32(std::vector<float>(24), Shape{3, 8});
  EXPECT_EQ(refusal(other, R"({"quant_method":"awq"})"),
            "[awq] module 'm': expected groups of equal size of 64 inputs, found 3 groups");
  other[2].second = f32(std::vector<float>(32), Shape{4, 8});
  EXPECT_EQ(refusal(other, R"({"quant_method":"awq"})"),
            "[awq] tensor 'm.qzeros': expected the shape (4, 1), found (2, 1)");
}

constexpr char kBitsandbytes[] = R"({"quant_method":"bitsandbytes","load_in_4bit":true})";

Tensor text(const std::string& json) {
  return bytes(json, Shape{static_cast<int64_t>(json.size())});
}

Named four_bits(const Golden& golden, const std::string& kind, bool nested) {
  Named tensors = {{"m.weight", golden.tensor(kind + ".packed").clone().view(Shape{960, 1})},
                   {"m.weight.quant_map", golden.tensor(kind + ".code").clone()}};
  std::string state =
      fmt::format(R"("quant_type":"{}","blocksize":64,"dtype":"bfloat16","shape":[10,192])", kind);
  if (nested) {
    tensors.emplace_back("m.weight.absmax", golden.tensor(kind + ".dq_absmax_u8").clone());
    tensors.emplace_back("m.weight.nested_absmax", golden.tensor(kind + ".dq_absmax2").clone());
    tensors.emplace_back("m.weight.nested_quant_map", golden.tensor("dynamic8.code").clone());
    // 17 digits give the same float back.
    state += fmt::format(R"(,"nested_blocksize":256,"nested_dtype":"float32","nested_offset":{:.17g})",
                         golden.floats(kind + ".dq_offset")[0]);
  } else {
    tensors.emplace_back("m.weight.absmax", golden.tensor(kind + ".absmax").clone());
  }
  tensors.emplace_back("m.weight.quant_state.bitsandbytes__" + kind, text("{" + state + "}"));
  return tensors;
}

TEST(Bitsandbytes, GivesTheReferencesWeightsBitByBit) {
  const Golden golden;
  for (const std::string kind : {"nf4", "fp4"}) {
    const Tensor plain = weight_of(four_bits(golden, kind, false), kBitsandbytes);
    EXPECT_EQ(plain.shape(), (Shape{10, 192}));
    EXPECT_EQ(plain.to_floats(), golden.floats(kind + ".dequant")) << kind;
    const Tensor nested = weight_of(four_bits(golden, kind, true), kBitsandbytes);
    EXPECT_EQ(nested.to_floats(), golden.floats(kind + ".dequant_doublequant")) << kind;
  }
}

TEST(Bitsandbytes, ReadsCodesStoredAsAnotherType) {
  const Golden golden;
  Named tensors = four_bits(golden, "nf4", false);
  const auto packed = golden.tensor("nf4.packed").clone();
  tensors[0].second = bytes({reinterpret_cast<const char*>(packed.raw()), 960}, Shape{480, 1}, DType::bf16);
  EXPECT_EQ(weight_of(tensors, kBitsandbytes).to_floats(), golden.floats("nf4.dequant"));
}

TEST(Bitsandbytes, ReadsOddNumbersOfValues) {
  const Named tensors = {
      {"m.weight", bytes("\x12\x30", Shape{2, 1})},
      {"m.weight.absmax", f32({2, 10}, Shape{2})},
      {"m.weight.quant_map", f32({0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, Shape{16})},
      {"m.weight.quant_state.bitsandbytes__nf4", text(R"({"blocksize":2,"shape":[1,3]})")}};
  EXPECT_EQ(weight_of(tensors, R"({"load_in_4bit":true})").to_floats(), (std::vector<float>{2, 4, 30}))
      << "the first code is in the high half; old configurations do not name the method";
}

TEST(Bitsandbytes, ReadsRowsOfInt8) {
  const std::vector<int8_t> codes = {127, -127, 0, 1, 64, -3};
  const Named tensors = {{"m.weight", raw(codes, Shape{2, 3}, DType::i8)},
                         {"m.SCB", f32({2.5f, 0.7f}, Shape{2})},
                         {"m.weight_format", bytes(std::string_view("\0", 1), Shape{})}};
  const auto values =
      weight_of(tensors, R"({"quant_method":"bitsandbytes","load_in_8bit":true})").to_floats();
  for (size_t i = 0; i < codes.size(); ++i) {
    const float scale = i < 3 ? 2.5f : 0.7f;
    EXPECT_EQ(values[i], static_cast<float>(codes[i]) * scale * 7.874015718698502e-3f);
    EXPECT_NEAR(values[i], codes[i] * double{scale} / 127, 1e-6);
  }
  Named other = tensors;
  other[2].second = bytes("\1", Shape{});
  EXPECT_EQ(refusal(other, kBitsandbytes),
            "[bitsandbytes] module 'm': weight_format: expected 0 (row by row), found a layout of some GPU");
  other = tensors;
  other[1].second = f32({1}, Shape{1});
  EXPECT_EQ(refusal(other, kBitsandbytes), "[bitsandbytes] module 'm': SCB: expected 2 elements, found 1");
}

TEST(Bitsandbytes, SaysWhatDoesNotFit) {
  const Golden golden;
  const auto with_state = [&](const std::string& state, bool nested = false) {
    Named tensors = four_bits(golden, "nf4", nested);
    tensors.back().second = text(state);
    return refusal(tensors, kBitsandbytes);
  };
  EXPECT_THAT(with_state("{"), HasSubstr("m.weight.quant_state.bitsandbytes__nf4: not valid JSON"));
  EXPECT_THAT(with_state("[]"), HasSubstr("expected an object, found array"));
  EXPECT_EQ(with_state(R"({"blocksize":64})"),
            "[bitsandbytes] module 'm': shape: expected a list of 1 to 4 integers, found none");
  EXPECT_THAT(with_state(R"({"shape":[1,-1],"blocksize":64})"),
              HasSubstr("shape: expected integers from 0 up, found -1"));
  EXPECT_THAT(with_state(R"({"shape":[4611686018427387904,4],"blocksize":64})"),
              HasSubstr("module 'm': shape"));
  EXPECT_THAT(with_state(R"({"shape":[10,192],"blocksize":0})"),
              HasSubstr("blocksize: expected an integer from 1 to 2^31, found 0"));
  EXPECT_THAT(with_state(R"({"shape":[10,192]})"), HasSubstr("blocksize"));
  EXPECT_THAT(with_state(R"({"shape":[10,193],"blocksize":64})"),
              HasSubstr("weight: expected 965 bytes for the shape (10, 193), found 960"));
  EXPECT_THAT(with_state(R"({"shape":[10,192],"blocksize":32})"),
              HasSubstr("weight.absmax: expected 60 elements, found 30"));
  EXPECT_THAT(with_state(R"({"shape":[10,192],"blocksize":64})", true), HasSubstr("nested_blocksize"));
  EXPECT_THAT(
      with_state(R"({"shape":[10,192],"blocksize":64,"nested_blocksize":10,"nested_offset":0})", true),
      HasSubstr("weight.nested_absmax: expected 3 elements, found 1"));
}

// Bits of E4M3 for some values.
constexpr std::pair<uint8_t, float> kF8[] = {{0x38, 1},       {0x40, 2},   {0xB8, -1},
                                             {0x01, 0x1p-9f}, {0x7E, 448}, {0x3C, 1.5f}};

TEST(Fp8, ScalesBlocks) {
  constexpr int64_t kRows = 5;
  constexpr int64_t kCols = 7;
  std::vector<uint8_t> codes;
  for (size_t i = 0; i < kRows * kCols; ++i) codes.push_back(kF8[i % 6].first);
  const auto scales = random_scales(3 * 3, 1);
  const Named tensors = {{"m.weight", raw(codes, Shape{kRows, kCols}, DType::f8_e4m3)},
                         {"m.weight_scale_inv", f32(scales, Shape{3, 3})},
                         {"m.input_scale", f32({1}, Shape{})},
                         {"plain.weight", f32({5}, Shape{1})}};
  const std::string config = R"({"quant_method":"fp8","fmt":"e4m3","weight_block_size":[2,3]})";
  const auto values = weight_of(tensors, config).to_floats();
  for (size_t row = 0; row < kRows; ++row)
    for (size_t col = 0; col < kCols; ++col)
      EXPECT_EQ(values[row * kCols + col],
                kF8[(row * kCols + col) % 6].second * scales[row / 2 * 3 + col / 3]);
  test::TemporaryDirectory dir;
  write_model(dir, tensors, config);
  std::vector<std::string> names;
  const auto model = open_checkpoint(dir.path());
  for (const auto& entry : model->entries()) names.push_back(entry.name);
  EXPECT_THAT(names, ::testing::ElementsAre("m.weight", "plain.weight"));
  EXPECT_EQ(
      refusal(tensors, R"({"quant_method":"fp8","weight_block_size":[2,2]})"),
      "[fp8] module 'm': expected scales of a weight (5, 7) in blocks of 2 x 2, found the shape (3, 3)");
  EXPECT_EQ(refusal(tensors, R"({"quant_method":"fp8","weight_block_size":[2]})"),
            "[fp8] weight_block_size: expected two positive integers, found [2]");
  EXPECT_EQ(refusal(tensors, R"({"quant_method":"fp8"})"),
            "[fp8] module 'm': expected scales of a weight (5, 7), found the shape (3, 3)");
}

TEST(Fp8, ScalesRowsAndTensors) {
  const std::vector<uint8_t> codes = {0x38, 0x40, 0xB8, 0x7E};
  const std::string config = R"({"quant_method":"fbgemm_fp8"})";
  const auto weight = [&](const Tensor& scale) {
    return weight_of({{"m.weight", raw(codes, Shape{2, 2}, DType::f8_e4m3)}, {"m.weight_scale", scale}},
                     config)
        .to_floats();
  };
  EXPECT_EQ(weight(f32({0.5f, 3}, Shape{2, 1})), (std::vector<float>{0.5f, 1, -3, 1344}));
  EXPECT_EQ(weight(f32({0.5f, 3}, Shape{2})), (std::vector<float>{0.5f, 1, -3, 1344}));
  EXPECT_EQ(weight(f32({0.25f}, Shape{}).to(DType::bf16)), (std::vector<float>{.25f, .5f, -.25f, 112}));
  EXPECT_EQ(refusal({{"m.weight", f32({1}, Shape{1, 1})}, {"m.weight_scale", f32({1}, Shape{})}}, config),
            "[fp8] tensor 'm.weight': expected f8_e4m3 or f8_e5m2, found f32");
}

std::string compressed(const std::string& weights, const std::string& format = "pack-quantized") {
  return fmt::format(R"({{"quant_method":"compressed-tensors","format":"{}","config_groups":{{"group_0":{{)"
                     R"("targets":["Linear"],"weights":{}}}}}}})",
                     format, weights);
}

TEST(CompressedTensors, UnpacksGroupsChannelsAndTensors) {
  constexpr int64_t kRows = 5;
  constexpr int64_t kCols = 48;
  for (const int bits : {4, 8, 3}) {
    for (const int64_t groups : {int64_t{0}, int64_t{1}, int64_t{3}}) {  // 0: one scale for all
      for (const bool has_zeros : {false, true}) {
        if (has_zeros && groups == 0) continue;
        for (const bool has_order : {false, true}) {
          const int64_t columns = std::max<int64_t>(groups, 1);
          const auto codes = random_codes(kRows * kCols, bits, 1);
          const auto zeros = random_codes(kRows * columns, bits, 2);
          const auto scales = random_scales(groups == 0 ? 1 : kRows * columns, 3);
          std::vector<int32_t> order;
          for (int32_t i = 0; i < kCols; ++i) order.push_back(i * 7 % static_cast<int32_t>(columns));
          Named tensors = {
              {"m.weight_packed", packed_rows(codes, kRows, kCols, bits)},
              {"m.weight_scale", groups == 0 ? f32(scales, Shape{1}) : f32(scales, Shape{kRows, columns})},
              {"m.weight_shape", raw(std::vector<int64_t>{kRows, kCols}, Shape{2}, DType::i64)}};
          if (has_zeros)
            tensors.emplace_back("m.weight_zero_point", packed_columns(zeros, kRows, columns, bits));
          if (has_order) tensors.emplace_back("m.weight_g_idx", i32(order, Shape{kCols}));
          const auto values =
              weight_of(tensors, compressed(fmt::format(R"({{"num_bits":{},"type":"int"}})", bits)));
          ASSERT_EQ(values.shape(), (Shape{kRows, kCols}));
          for (int64_t row = 0; row < kRows; ++row) {
            for (int64_t col = 0; col < kCols; ++col) {
              const int64_t group = has_order ? order[static_cast<size_t>(col)] : col / (kCols / columns);
              const auto place = static_cast<size_t>(row * columns + group);
              const int half = 1 << (bits - 1);
              const int code = codes[static_cast<size_t>(row * kCols + col)] - half;
              const int zero = has_zeros ? zeros[place] - half : 0;
              EXPECT_EQ(values.span<float>()[static_cast<size_t>(row * kCols + col)],
                        static_cast<float>(code - zero) * scales[groups == 0 ? 0 : place]);
            }
          }
        }
      }
    }
  }
}

TEST(CompressedTensors, ReadsWeightsOfWholeBytes) {
  const std::vector<int8_t> codes = {127, -128, 3, -5, 0, 1};
  Named tensors = {{"m.weight", raw(codes, Shape{2, 3}, DType::i8)},
                   {"m.weight_scale", f32({0.5f, 2}, Shape{2, 1})}};
  const std::string config = compressed(R"({"num_bits":8,"type":"int"})", "int-quantized");
  EXPECT_EQ(weight_of(tensors, config).to_floats(), (std::vector<float>{63.5f, -64, 1.5f, -10, 0, 2}));
  tensors.emplace_back("m.weight_zero_point", raw(std::vector<int8_t>{1, -1}, Shape{2, 1}, DType::i8));
  EXPECT_EQ(weight_of(tensors, config).to_floats(), (std::vector<float>{63, -64.5f, 1, -8, 2, 4}));
  const std::vector<uint8_t> f8 = {0x38, 0x40, 0xB8, 0x7E};
  const std::string floats =
      compressed(R"({"num_bits":8,"type":"float","block_structure":[1,1]})", "float-quantized");
  EXPECT_EQ(weight_of({{"m.weight", raw(f8, Shape{2, 2}, DType::f8_e4m3)},
                       {"m.weight_scale", f32({2, 3}, Shape{2, 1})}},
                      floats)
                .to_floats(),
            (std::vector<float>{2, 4, -3, 1344}));
  EXPECT_EQ(weight_of({{"m.weight", raw(f8, Shape{2, 2}, DType::f8_e4m3)},
                       {"m.weight_scale", f32({2, 3, 4, 5}, Shape{2, 2})}},
                      floats)
                .to_floats(),
            (std::vector<float>{2, 6, -4, 2240}));
}

TEST(CompressedTensors, SaysWhatDoesNotFit) {
  const auto shape = raw(std::vector<int64_t>{2, 8}, Shape{2}, DType::i64);
  const Named tensors = {{"m.weight_packed", i32({1, 2}, Shape{2, 1})},
                         {"m.weight_scale", f32({1, 1}, Shape{2, 1})},
                         {"m.weight_shape", shape}};
  const std::string four = R"({"num_bits":4})";
  EXPECT_EQ(refusal(tensors, compressed(four)), "(no error)");
  EXPECT_EQ(
      refusal(tensors, compressed(R"({"num_bits":8})")),
      "[compressed-tensors] module 'm': weight_packed: expected a weight (2, 8) of 8 bits, found (2, 1)");
  EXPECT_EQ(refusal(tensors, compressed(R"({"num_bits":9})")),
            "[compressed-tensors] num_bits: expected 1 to 8, found 9");
  EXPECT_THAT(
      refusal(tensors, compressed(four, "nvfp4-pack-quantized")),
      HasSubstr(
          "[compressed-tensors] format: expected one of pack-quantized, int-quantized, naive-quantized, "
          "float-quantized, mixed-precision, dense; found 'nvfp4-pack-quantized'"));
  std::string sparse = compressed(four);
  sparse.insert(1, R"("sparsity_config":{"format":"sparse-24-bitmask"},)");
  EXPECT_EQ(refusal(tensors, sparse),
            "[compressed-tensors] sparsity_config: expected the format dense, found 'sparse-24-bitmask'");
  std::string turned = compressed(four);
  turned.insert(1, R"("transform_config":{"config_groups":{"u":{}}},)");
  EXPECT_EQ(refusal(tensors, turned),
            "[compressed-tensors] transform_config: expected none, found transformed weights");
  const auto with = [&](size_t i, const Tensor& tensor) {
    Named other = tensors;
    other[i].second = tensor;
    return refusal(other, compressed(four));
  };
  EXPECT_THAT(with(2, raw(std::vector<int64_t>{-2, 8}, Shape{2}, DType::i64)),
              HasSubstr("expected a weight (-2, 8)"));
  EXPECT_THAT(with(2, raw(std::vector<int64_t>{2, INT64_MAX}, Shape{2}, DType::i64)),
              HasSubstr("expected a weight (2, "));
  EXPECT_THAT(
      with(1, f32({1, 1, 1}, Shape{3, 1})),
      HasSubstr("weight_scale: expected one of each output and group of equal size of 2 x 8, found (3, 1)"));
  EXPECT_THAT(with(1, f32({1, 1, 1, 1, 1, 1}, Shape{2, 3})), HasSubstr("found (2, 3)"));
}

TEST(DequantizedView, KeepsWhatIsStored) {
  test::TemporaryDirectory dir;
  Named tensors = small_gptq();
  tensors.insert(tensors.begin(), {"first", f32({1, 2}, Shape{2})});
  tensors.emplace_back("m.bias", f32(std::vector<float>(8, 3), Shape{8}));
  write_model(dir, tensors, kSmallGptq);
  const auto model = open_checkpoint(dir.path());
  EXPECT_EQ(model->format_name(), "huggingface");
  std::vector<std::string> names;
  for (const auto& entry : model->entries()) names.push_back(entry.name);
  EXPECT_THAT(names, ::testing::ElementsAre("first", "m.weight", "m.bias"));
  EXPECT_EQ(model->find("m.weight")->bytes, 8u * 64 * 4);
  EXPECT_EQ(model->find("m.weight")->file, "model.safetensors");
  EXPECT_EQ(model->read("m.weight").to_floats(), std::vector<float>(512, 0))
      << "codes of 1, zero points of 0 + 1";
  model->release("m.weight");
  EXPECT_EQ(model->read("m.weight").to_floats()[0], 0);
  EXPECT_EQ(model->read("m.bias").to_floats()[7], 3);
  EXPECT_FALSE(model->config()->contains("quantization_config"))
      << "what is written from it is not quantized";
  EXPECT_EQ(model->config()->at("layers"), 1);
  EXPECT_THAT(*model->file("config.json"), ::testing::Not(HasSubstr("quantization_config")));
  EXPECT_THAT(model->file_names(), ::testing::ElementsAre("config.json"));
  EXPECT_EQ(model->stored().entries().size(), 5u);
  EXPECT_EQ(model->stored().read("m.qweight").dtype(), DType::i32);
  EXPECT_TRUE(model->stored().config()->contains("quantization_config"));
  EXPECT_EQ(&model->stored().stored(), &model->stored());
  EXPECT_THAT(error_of([&] { model->read("m.qweight"); }),
              HasSubstr("tensor 'm.qweight': expected in the checkpoint"));
  const auto file = open_checkpoint(dir / "model.safetensors");
  EXPECT_NE(file->find("m.weight"), nullptr) << "a single file takes the quantization beside it";
}

TEST(DequantizedView, NamesUnknownMethods) {
  EXPECT_EQ(refusal(small_gptq(), R"({"quant_method":"gptqq"})"),
            "[checkpoint] quantization_config: quant_method: expected one of gptq, awq, bitsandbytes, fp8, "
            "fbgemm_fp8, "
            "compressed-tensors; found 'gptqq'; did you mean 'gptq'?");
  EXPECT_THAT(refusal(small_gptq(), R"({"bits":4})"), HasSubstr("quant_method"));
  EXPECT_EQ(refusal({{"m.weight", f32({1}, Shape{1})}}, kSmallGptq), "(no error)") << "nothing is quantized";
  Named both = small_gptq();
  both.emplace_back("m.weight", f32({1}, Shape{1}));
  EXPECT_EQ(refusal(both, kSmallGptq),
            "[checkpoint] tensor 'm.weight': expected either quantized or plain, found both");
}

}  // namespace
}  // namespace qkv
