// Compressed `.qkv` files: every bit comes back, and damage anywhere in them is found and named.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "qkv/core/error.h"
#include "qkv/core/parallel.h"
#include "qkv/core/rng.h"
#include "qkv/formats/qkv_file.h"
#include "tests/formats/qkv_bytes.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

using test::Bytes;
using test::error_of;
using test::qkv_record;
using test::QkvParts;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

std::string bytes_of(const Tensor& tensor) {
  return std::string(reinterpret_cast<const char*>(tensor.raw()), tensor.bytes());
}

std::span<const std::byte> as_file(std::string_view bytes) {
  return std::as_bytes(std::span(bytes.data(), bytes.size()));
}

template <typename T, typename Make>
Tensor filled(DType type, const Shape& shape, Make&& make) {
  Tensor tensor = Tensor::empty(shape, type);
  for (uint64_t i = 0; i < tensor.bytes() / sizeof(T); ++i) {
    const T value = make(i);
    std::memcpy(tensor.raw() + i * sizeof(T), &value, sizeof(T));
  }
  return tensor;
}

struct Model {
  std::vector<TensorEntry> entries;
  std::vector<Tensor> tensors;
  std::vector<std::pair<std::string, std::string>> files;

  void add(const std::string& name, Tensor tensor) {
    entries.push_back({name, tensor.dtype(), tensor.shape()});
    tensors.push_back(std::move(tensor));
  }
  std::string write(const QkvWriterOptions& options) const {
    test::TemporaryDirectory dir;
    QkvWriter writer(dir / "x.qkv", entries, Metadata(), files, options);
    for (size_t i = 0; i < entries.size(); ++i) writer.write(entries[i].name, tensors[i]);
    writer.finish();
    return read_file(dir / "x.qkv");
  }
};

// One tensor for every codec, and an embedded file with repeats.
Model small_model() {
  Model model;
  Rng rng(3);
  model.add("normal",
            filled<bf16>(DType::bf16, {40, 50}, [&](uint64_t) { return to_bf16(0.02f * rng.normal()); }));
  model.add("few", filled<uint16_t>(DType::f16, {30, 60}, [&](uint64_t) {
              return static_cast<uint16_t>(rng.next_u32() % 16 * 977);
            }));
  model.add("repeats",
            filled<int64_t>(DType::i64, {20, 16}, [&](uint64_t i) { return static_cast<int64_t>(i % 16); }));
  model.add("noise", filled<uint8_t>(DType::u8, {10, 31},
                                     [&](uint64_t) { return static_cast<uint8_t>(rng.next_u32()); }));
  std::string text;
  for (int i = 0; i < 40; ++i) text += "{\"key\": \"value\"}\n";
  model.files = {{"tokenizer.json", text}};
  return model;
}

QkvWriterOptions lossless(uint64_t chunk_bytes = 2048) {
  QkvWriterOptions options;
  options.chunk_bytes = chunk_bytes;
  options.lossless = CodecOptions{};
  return options;
}

std::string codecs_of(std::string_view file) {
  const QkvDirectory directory = parse_qkv(as_file(file), "x");
  std::vector<std::string> names;
  for (const auto* records : {&directory.files, &directory.tensors}) {
    for (const QkvRecord& record : *records) {
      std::string codecs;
      for (const QkvChunk& chunk : record.chunks) {
        const std::string& name = directory.codecs[chunk.codec].name;
        if (codecs.find(name) == std::string::npos) codecs += name;
      }
      names.push_back(record.entry.name + ":" + codecs);
    }
  }
  return fmt::format("{}", fmt::join(names, " "));
}

TEST(QkvLossless, EveryCodecIsUsedWhereItIsSmallest) {
  EXPECT_EQ(codecs_of(small_model().write(lossless())),
            "tokenizer.json:zstd normal:split few:dictionary repeats:zstd noise:raw");
  QkvWriterOptions only = lossless();
  only.lossless->split = only.lossless->zstd = false;
  EXPECT_EQ(codecs_of(small_model().write(only)),
            "tokenizer.json:dictionary normal:raw few:dictionary repeats:dictionary noise:raw");
}

TEST(QkvLossless, EveryBitOfEveryTypeComesBack) {
  Model model = small_model();
  Rng rng(7);
  for (int i = 0; i < kDTypeCount; ++i) {
    const auto type = static_cast<DType>(i);
    model.add(std::string(name(type)),
              filled<uint8_t>(type, {2, 3, traits(type).block_length * 2},
                              [&](uint64_t) { return static_cast<uint8_t>(rng.next_u32()); }));
    model.add("zeros " + std::string(name(type)), Tensor::zeros({30, traits(type).block_length}, type));
  }
  // Every word of sixteen bits: NaN payloads, negative zeros, subnormals.
  model.add("words", filled<uint16_t>(DType::bf16, {256, 256},
                                      [](uint64_t i) { return static_cast<uint16_t>(i * 40503); }));
  model.add("negative zeros", filled<uint32_t>(DType::f32, {100, 10}, [](uint64_t i) {
              return i % 3 == 0 ? 0x80000000u : i % 3 == 1 ? 0x7FC00001u + static_cast<uint32_t>(i) : 0u;
            }));
  model.add("scalar", Tensor::zeros({}, DType::f32));
  model.add("empty", Tensor::zeros({3, 0}, DType::bf16));
  model.add("none", Tensor::zeros({0, 5}, DType::u8));
  for (const uint64_t chunk_bytes : {600, 1 << 20}) {
    for (const uint64_t row_alignment : {1, 16}) {
      QkvWriterOptions options = lossless(chunk_bytes);
      options.row_alignment = row_alignment;
      test::TemporaryDirectory dir;
      write_file(dir / "x.qkv", model.write(options));
      const QkvFile file(dir / "x.qkv");
      EXPECT_THAT(file.verify(), IsEmpty());
      EXPECT_EQ(file.file("tokenizer.json"), model.files[0].second);
      for (size_t i = 0; i < model.entries.size(); ++i) {
        const Tensor found = file.read(model.entries[i].name);
        EXPECT_EQ(found.dtype(), model.entries[i].type);
        EXPECT_EQ(found.shape(), model.entries[i].shape);
        EXPECT_TRUE(bytes_of(found) == bytes_of(model.tensors[i])) << model.entries[i].name;
        file.release(model.entries[i].name);
      }
    }
  }
}

TEST(QkvLossless, TheFileIsTheSameForAnyNumberOfThreads) {
  const Model model = small_model();
  const int threads = num_threads();
  const std::string expected = model.write(lossless(256));
  for (const int n : {1, 3}) {
    set_num_threads(n);
    EXPECT_TRUE(model.write(lossless(256)) == expected) << n << " threads";
  }
  set_num_threads(threads);
}

TEST(QkvLossless, WhatIsNotCompressedIsBorrowed) {
  test::TemporaryDirectory dir;
  write_file(dir / "x.qkv", small_model().write(lossless()));
  const QkvFile file(dir / "x.qkv");
  EXPECT_EQ(file.read("noise").raw(), file.read("noise").raw());
  EXPECT_NE(file.read("normal").raw(), Tensor(file.read("normal")).raw());
}

TEST(QkvLossless, SharesOfTheCodecs) {
  test::TemporaryDirectory dir;
  write_file(dir / "x.qkv", small_model().write(lossless()));
  const auto shares = QkvFile(dir / "x.qkv").codec_shares();
  ASSERT_EQ(shares.size(), 4u);
  EXPECT_EQ(shares[0].codec, "raw");
  EXPECT_EQ(shares[0].bytes, 310u);
  EXPECT_EQ(shares[0].stored_bytes, 310u);
  EXPECT_EQ(shares[2].codec, "split");
  EXPECT_EQ(shares[2].bytes, 4000u);
  EXPECT_EQ(shares[2].chunks, 2u);  // rows of 100 bytes: 20 to a chunk
  EXPECT_LT(shares[2].stored_bytes, 3600u);
  EXPECT_EQ(shares[1].bytes, 3600u);
  EXPECT_LT(shares[1].stored_bytes, 1100u);
}

// The first complaint of opening, verifying and reading, or "".
std::string complaint(std::string_view bytes) {
  try {
    const QkvDirectory directory = parse_qkv(as_file(bytes), "x");
    const auto defects = verify_qkv(as_file(bytes), directory, "x", [](uint64_t, uint64_t) {});
    return defects.empty() ? "" : defects[0];
  } catch (const Error& error) {
    return error.what();
  }
}

// The same of opening and reading every compressed record, without verify().
std::string complaint_on_reading(std::string_view bytes) {
  try {
    const QkvDirectory directory = parse_qkv(as_file(bytes), "x");
    for (const auto* records : {&directory.files, &directory.tensors}) {
      for (const auto& record : *records)
        decode_qkv_record(as_file(bytes), directory, record, "record '" + record.entry.name + "'", "x");
    }
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

TEST(QkvLossless, FlippedBitsAnywhereAreFoundAndNamed) {
  const std::string whole = small_model().write(lossless(512));
  ASSERT_EQ(complaint(whole), "");
  ASSERT_EQ(complaint_on_reading(whole), "");
  const QkvDirectory directory = parse_qkv(as_file(whole), "x");
  const auto owner = [&](uint64_t offset) -> std::string {  // of the byte, as the complaint should name it
    if (offset < 64) return "";
    if (offset >= whole.size() - 64) return "";
    if (offset >= directory.offset)
      return fmt::format("the directory at offset {} is damaged", directory.offset);
    for (const auto* records : {&directory.files, &directory.tensors}) {
      for (const auto& record : *records) {
        for (size_t c = 0; c < record.chunks.size(); ++c) {
          const QkvChunk& chunk = record.chunks[c];
          if (offset >= chunk.offset && offset < chunk.offset + chunk.encoded_bytes)
            return fmt::format("'{}': chunk {} at offset {}", record.entry.name, c, chunk.offset);
        }
      }
    }
    return fmt::format("padding at offset {}", offset);
  };
  for (size_t byte = 0; byte < whole.size(); ++byte) {
    std::string damaged = whole;
    damaged[byte] = static_cast<char>(damaged[byte] ^ 1 << byte % 8);
    const std::string found = complaint(damaged), expected = owner(byte);
    ASSERT_THAT(found, StartsWith("[qkv] x: ")) << "byte " << byte;
    ASSERT_THAT(found, HasSubstr(expected)) << "byte " << byte;
    if (expected.starts_with("padding")) continue;  // which nothing reads
    ASSERT_THAT(complaint_on_reading(damaged), HasSubstr(expected)) << "byte " << byte;
  }
}

TEST(QkvLossless, EveryTruncationIsRefused) {
  const std::string whole = small_model().write(lossless());
  for (size_t size = 0; size < whole.size(); size += size < 200 || whole.size() - size < 600 ? 1 : 7) {
    EXPECT_THAT(complaint(whole.substr(0, size)), StartsWith("[qkv] x: ")) << size;
  }
}

// With checksums that hold: what a faulty or hostile writer makes.
TEST(QkvLossless, NamesWhatIsWrong) {
  const auto file_of = [](const char* codec, const std::string& parameters, const std::string& encoded,
                          uint64_t bytes) {
    QkvParts parts;
    parts.data = encoded;
    parts.codecs = {{codec, parameters}};
    parts.tensors = {qkv_record("a", "u8", {bytes}, bytes, bytes, 64, {{0, encoded}})};
    return complaint_on_reading(parts.give());
  };
  const std::string where = "[qkv] x: record 'a': chunk 0 at offset 64: ";
  EXPECT_THAT(file_of("zstd", "", "12345678", 100), StartsWith(where + "zstd: "));
  EXPECT_THAT(file_of("dictionary", "", std::string(30, '\0'), 100),
              StartsWith(where + "dictionary: expected 2^4 to 2^12 entries, found 2^0"));
  EXPECT_THAT(file_of("split", "", "\x07", 10), StartsWith(where + "split: unknown element kind 7"));
  EXPECT_THAT(file_of("split", "abc", "\x07", 10),
              StartsWith(where + "expected a codec without parameters, found 3 bytes of them"));
  // What would need more memory than the bytes can stand for is refused before it is asked for.
  EXPECT_THAT(
      file_of("zstd", "", "abc", uint64_t{1} << 50),
      HasSubstr("tensor 'a': chunk 0: expected at least 34359738368 bytes, as the codec 'zstd' makes at most "
                "32768 of one, found 3"));
  EXPECT_THAT(file_of("dictionary", "", "abc", 100), HasSubstr("expected at least 25 bytes"));
}

}  // namespace
}  // namespace qkv
