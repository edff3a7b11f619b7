#include "qkv/formats/llama2c.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "qkv/core/atomic_file.h"
#include "qkv/core/error.h"
#include "qkv/formats/gguf.h"
#include "tests/formats/binary_bytes.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

using test::Bytes;
using test::error_of;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// Width 8, hidden width 6, 2 layers, 2 heads of 4, 1 key/value head, 5 tokens, a context of 3.
Bytes sizes(bool tied) {
  Bytes bytes;
  for (const int32_t size : {8, 6, 2, 2, 1, tied ? 5 : -5, 3}) bytes.i32(size);
  return bytes;
}

void add_count(Bytes& bytes, int count, int first) {
  for (int i = 0; i < count; ++i) bytes.f32(static_cast<float>(first + i));
}

// Every array holds its own thousands: embeddings 1000.., attention norms 2000.., and so on.
std::string legacy(bool tied) {
  Bytes bytes = sizes(tied);
  const int counts[] = {40, 16, 128, 64, 64, 128, 16, 96, 96, 96, 8, 6, 6};
  for (int i = 0; i < 13; ++i) add_count(bytes, counts[i], 1000 * (i + 1));
  if (!tied) add_count(bytes, 40, 14000);
  return bytes.str();
}

Bytes version_header(int32_t version, bool tied) {
  Bytes bytes;
  bytes.u32(0x616b3432).i32(version).raw(sizes(true).str()).u8(tied ? 1 : 0);
  if (version == 2) bytes.i32(4);
  return bytes.align(256);
}

std::string version1(bool tied) {
  Bytes bytes = version_header(1, tied);
  const int counts[] = {16, 16, 8, 40, 128, 64, 64, 128, 96, 96, 96};
  for (int i = 0; i < 11; ++i) add_count(bytes, counts[i], 1000 * (i + 1));
  if (!tied) add_count(bytes, 40, 12000);
  return bytes.str();
}

// Groups of 4. Codes count up from the number of the array; group g of it has the scale 1 + g.
std::string version2(bool tied) {
  Bytes bytes = version_header(2, tied);
  for (int i = 0; i < 3; ++i) add_count(bytes, i < 2 ? 16 : 8, 1000 * (i + 1));
  const int counts[] = {40, 64, 64, 32, 32, 32, 32, 64, 64, 48, 48, 48, 48, 48, 48, 40};
  for (int i = 0; i < (tied ? 15 : 16); ++i) {
    for (int j = 0; j < counts[i]; ++j) bytes.u8(static_cast<uint8_t>(i + j - 20));
    for (int g = 0; g < counts[i] / 4; ++g) bytes.f32(static_cast<float>(1 + g));
  }
  return bytes.str();
}

std::vector<float> counted(int count, int first) {
  std::vector<float> values;
  for (int i = 0; i < count; ++i) values.push_back(static_cast<float>(first + i));
  return values;
}

// Rows of 8 that begin with these numbers.
std::vector<float> rows_of_8(std::vector<int> firsts) {
  std::vector<float> values;
  for (const int first : firsts) {
    for (int i = 0; i < 8; ++i) values.push_back(static_cast<float>(first + i));
  }
  return values;
}

TEST(Llama2cFile, ReadsTheLegacyLayout) {
  test::TemporaryDirectory dir;
  for (const bool tied : {true, false}) {
    write_file(dir / "m.bin", legacy(tied));
    const Llama2cFile file(dir / "m.bin");
    EXPECT_EQ(file.format_name(), "llama2.c");
    EXPECT_EQ(file.header().version, 0);
    EXPECT_EQ(file.entries().size(), tied ? 20u : 21u);
    const Json& config = *file.config();
    EXPECT_EQ(config["architectures"][0], "LlamaForCausalLM");
    EXPECT_EQ(config["hidden_size"], 8);
    EXPECT_EQ(config["intermediate_size"], 6);
    EXPECT_EQ(config["num_hidden_layers"], 2);
    EXPECT_EQ(config["num_attention_heads"], 2);
    EXPECT_EQ(config["num_key_value_heads"], 1);
    EXPECT_EQ(config["vocab_size"], 5);
    EXPECT_EQ(config["max_position_embeddings"], 3);
    EXPECT_EQ(config["tie_word_embeddings"], tied);

    const auto values = [&](const std::string& name) { return file.read(name).to_floats(); };
    EXPECT_EQ(values("model.embed_tokens.weight"), counted(40, 1000));
    EXPECT_EQ(file.read("model.embed_tokens.weight").shape(), (Shape{5, 8}));
    EXPECT_EQ(values("model.layers.1.input_layernorm.weight"), counted(8, 2008));
    EXPECT_EQ(values("model.layers.1.self_attn.v_proj.weight"), counted(32, 5032));
    EXPECT_EQ(values("model.layers.0.self_attn.o_proj.weight"), counted(64, 6000));
    EXPECT_EQ(values("model.layers.1.post_attention_layernorm.weight"), counted(8, 7008));
    EXPECT_EQ(values("model.layers.1.mlp.gate_proj.weight"), counted(48, 8048));
    EXPECT_EQ(values("model.layers.1.mlp.down_proj.weight"), counted(48, 9048));
    EXPECT_EQ(file.read("model.layers.1.mlp.down_proj.weight").shape(), (Shape{8, 6}));
    EXPECT_EQ(values("model.layers.0.mlp.up_proj.weight"), counted(48, 10000));
    EXPECT_EQ(values("model.norm.weight"), counted(8, 11000));
    EXPECT_EQ(file.find("lm_head.weight") == nullptr, tied);
    if (!tied) {
      EXPECT_EQ(values("lm_head.weight"), counted(40, 14000));
    }
    // Rotary pairs (0, 1), (2, 3) of each head become (0, 2), (1, 3).
    EXPECT_EQ(values("model.layers.1.self_attn.q_proj.weight"),
              rows_of_8({3064, 3080, 3072, 3088, 3096, 3112, 3104, 3120}));
    EXPECT_EQ(values("model.layers.0.self_attn.k_proj.weight"), rows_of_8({4000, 4016, 4008, 4024}));

    const Tensor norm = file.read("model.norm.weight");
    EXPECT_EQ(norm.raw(), file.read("model.norm.weight").raw()) << "borrowed, not copied";
    for (const auto& entry : file.entries()) file.release(entry.name);
    EXPECT_EQ(values("model.norm.weight"), counted(8, 11000));
  }
}

TEST(Llama2cFile, ReadsVersion1) {
  test::TemporaryDirectory dir;
  for (const bool tied : {true, false}) {
    write_file(dir / "m.bin", version1(tied));
    const Llama2cFile file(dir / "m.bin");
    EXPECT_EQ(file.header().version, 1);
    const auto values = [&](const std::string& name) { return file.read(name).to_floats(); };
    EXPECT_EQ(values("model.layers.1.input_layernorm.weight"), counted(8, 1008));
    EXPECT_EQ(values("model.layers.0.post_attention_layernorm.weight"), counted(8, 2000));
    EXPECT_EQ(values("model.norm.weight"), counted(8, 3000));
    EXPECT_EQ(values("model.embed_tokens.weight"), counted(40, 4000));
    EXPECT_EQ(values("model.layers.0.self_attn.k_proj.weight"), rows_of_8({6000, 6016, 6008, 6024}));
    EXPECT_EQ(values("model.layers.1.mlp.up_proj.weight"), counted(48, 11048));
    EXPECT_EQ(file.find("lm_head.weight") == nullptr, tied);
    if (!tied) {
      EXPECT_EQ(values("lm_head.weight"), counted(40, 12000));
    }
  }
}

TEST(Llama2cFile, DequantizesVersion2) {
  test::TemporaryDirectory dir;
  for (const bool tied : {true, false}) {
    write_file(dir / "m.bin", version2(tied));
    const Llama2cFile file(dir / "m.bin");
    EXPECT_EQ(file.header().version, 2);
    EXPECT_EQ(file.header().group_size, 4);
    EXPECT_EQ(file.read("model.norm.weight").to_floats(), counted(8, 3000));
    const auto expected = [](int array, int element) {
      return static_cast<float>(static_cast<int8_t>(array + element - 20)) *
             static_cast<float>(1 + element / 4);
    };
    const auto check = [&](const std::string& name, int array) {
      const std::vector<float> found = file.read(name).to_floats();
      for (size_t i = 0; i < found.size(); ++i)
        EXPECT_EQ(found[i], expected(array, static_cast<int>(i))) << name;
    };
    check("model.embed_tokens.weight", 0);
    check("model.layers.0.self_attn.v_proj.weight", 5);
    check("model.layers.1.mlp.down_proj.weight", 12);  // rows of 6: groups of 4 cross them
    if (!tied) check("lm_head.weight", 15);
    const std::vector<float> key = file.read("model.layers.1.self_attn.k_proj.weight").to_floats();
    const int row_of[] = {0, 2, 1, 3};
    for (int i = 0; i < 32; ++i)
      EXPECT_EQ(key[static_cast<size_t>(i)], expected(4, row_of[i / 8] * 8 + i % 8));
    for (const auto& entry : file.entries()) file.release(entry.name);
    check("model.embed_tokens.weight", 0);
  }
}

TEST(Llama2cFile, IsRecognizedByItsSize) {
  test::TemporaryDirectory dir;
  for (const std::string& bytes : {legacy(true), legacy(false), version1(true), version2(false)}) {
    write_file(dir / "weights", bytes);
    EXPECT_EQ(open_checkpoint(dir / "weights")->format_name(), "llama2.c");
  }
  write_file(dir / "weights", legacy(true) + "x");
  EXPECT_THAT(error_of([&] { open_checkpoint(dir / "weights"); }), HasSubstr("of no known kind"));
  write_file(dir / "weights", version1(true) + "x");
  EXPECT_THAT(error_of([&] { open_checkpoint(dir / "weights"); }), StartsWith("[llama2.c] "));
}

TEST(Llama2cFile, NamesWhatIsWrong) {
  const auto with_sizes = [](std::vector<int32_t> values) {
    Bytes bytes;
    for (const int32_t value : values) bytes.i32(value);
    return bytes.str();
  };
  const auto with_version = [](int32_t version, int32_t group, size_t size = 5000) {
    Bytes bytes;
    bytes.u32(0x616b3432).i32(version).raw(sizes(true).str()).u8(1).i32(group).align(256);
    return bytes.raw(std::string(size, '\0')).str();
  };
  std::string bad_scale = version2(true);
  const float infinite = INFINITY;
  std::memcpy(bad_scale.data() + 256 + 160 + 40 + 4, &infinite, 4);
  struct Case {
    const char* what;
    std::string bytes;
    std::string error;
  };
  const Case cases[] = {
      {"empty", "", "header: expected 4 bytes at offset 0, found the end of the file after 0"},
      {"a part of the header", legacy(true).substr(0, 20), "sizes: expected 4 bytes"},
      {"version 3", with_version(3, 4), "version: expected 1 or 2, found 3"},
      {"no group", with_version(2, 0), "header: expected a positive number of elements per scale, found 0"},
      {"a negative group", with_version(2, -4),
       "header: expected a positive number of elements per scale, found -4"},
      {"a group of 3", with_version(2, 3),
       "expected elements that are a multiple of the group size, found 40 and 3"},
      {"no layers", with_sizes({8, 6, 0, 2, 1, 5, 3}), "header: expected seven positive sizes"},
      {"a negative width", with_sizes({-8, 6, 2, 2, 1, 5, 3}), "header: expected seven positive sizes"},
      {"heads that do not divide the width", with_sizes({8, 6, 2, 3, 1, 5, 3}),
       "header: expected heads of an even width, found 3 heads in a width of 8"},
      {"heads of an odd width", with_sizes({6, 6, 2, 2, 1, 5, 3}), "header: expected heads of an even width"},
      {"key/value heads that do not divide the heads", with_sizes({16, 6, 2, 8, 3, 5, 3}),
       "header: expected heads that are a multiple of the key/value heads, found 8 heads and 3"},
      {"sizes beyond 64 bits", with_sizes({2147483646, 2147483647, 2147483647, 1, 1, 2147483647, 2147483647}),
       "expected more than 2^64 bytes by the header, found 28"},
      {"sizes beyond the file", with_sizes({1 << 20, 1 << 20, 100, 4, 4, 100000, 100}),
       "bytes by the header, found 28"},
      {"trailing bytes", legacy(true) + "123", "expected 3084 bytes by the header, found 3087"},
  };
  for (const auto& item : cases) {
    const std::vector<char> exact(item.bytes.begin(), item.bytes.end());
    const std::string found = error_of([&] { parse_llama2c(std::as_bytes(std::span(exact)), "x"); });
    EXPECT_THAT(found, StartsWith("[llama2.c] x: ")) << item.what;
    EXPECT_THAT(found, HasSubstr(item.error)) << item.what;
  }
  for (const std::string& whole : {legacy(true), version1(true), version2(true)}) {
    for (size_t size = 0; size < whole.size(); ++size) {
      const std::vector<char> cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
      EXPECT_THAT(error_of([&] { parse_llama2c(std::as_bytes(std::span(cut)), "x"); }),
                  StartsWith("[llama2.c] "));
    }
  }
  test::TemporaryDirectory dir;
  write_file(dir / "m.bin", bad_scale);
  EXPECT_THAT(
      error_of([&] { Llama2cFile(dir / "m.bin").read("model.embed_tokens.weight"); }),
      HasSubstr("tensor 'model.embed_tokens.weight': group 1: expected a scale from 0 up, found inf"));
}

// The same trained model as a GGUF that llama.cpp's converter made. It keeps llama2.c's order of rotary
// pairs, so that comparing it checks the reordering too.
TEST(Llama2cFile, EqualsTheGgufOfTheSameModel) {
  const std::string path = test::shared("data/models/stories260K.bin");
  const std::string gguf_path = test::shared("data/models/stories260K-f32.gguf");
  if (!std::filesystem::exists(path)) GTEST_SKIP() << path << " is absent";
  const auto file = open_checkpoint(path);
  ASSERT_EQ(file->format_name(), "llama2.c");
  const GgufFile gguf(gguf_path);
  const std::pair<std::string, std::string> layer_names[] = {
      {"input_layernorm", "attn_norm"},
      {"self_attn.q_proj", "attn_q"},
      {"self_attn.k_proj", "attn_k"},
      {"self_attn.v_proj", "attn_v"},
      {"self_attn.o_proj", "attn_output"},
      {"mlp.gate_proj", "ffn_gate"},
      {"mlp.down_proj", "ffn_down"},
      {"mlp.up_proj", "ffn_up"},
      {"post_attention_layernorm", "ffn_norm"},
  };
  size_t compared = 0;
  const auto compare = [&](const std::string& name, const std::string& gguf_name) {
    const Tensor tensor = file->read(name), other = gguf.read(gguf_name);
    ASSERT_EQ(tensor.shape(), other.shape()) << name;
    const int64_t heads = name.find("q_proj") != std::string::npos   ? 8
                          : name.find("k_proj") != std::string::npos ? 4
                                                                     : 0;
    for (int64_t row = 0; row < tensor.rows(); ++row) {
      int64_t from = row;
      if (heads > 0) {
        const int64_t head_dim = tensor.rows() / heads, i = row % head_dim;
        from = row - i + (i < head_dim / 2 ? 2 * i : 2 * (i - head_dim / 2) + 1);
      }
      const auto found = tensor.data<float>() + row * tensor.cols();
      const auto expected = other.data<float>() + from * tensor.cols();
      ASSERT_TRUE(std::equal(found, found + tensor.cols(), expected)) << name << " row " << row;
    }
    ++compared;
  };
  compare("model.embed_tokens.weight", "token_embd.weight");
  compare("model.norm.weight", "output_norm.weight");
  for (int layer = 0; layer < 5; ++layer) {
    for (const auto& [hf, other] : layer_names) {
      compare(fmt::format("model.layers.{}.{}.weight", layer, hf),
              fmt::format("blk.{}.{}.weight", layer, other));
    }
  }
  EXPECT_EQ(compared, file->entries().size());
}

}  // namespace
}  // namespace qkv
