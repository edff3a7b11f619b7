#include "qkv/formats/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>

#include "qkv/core/error.h"
#include "tests/formats/gguf_bytes.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

namespace fs = std::filesystem;
using test::Bytes;
using test::error_of;
using test::gguf_pair;
using test::gguf_tensor;
using test::GgufParts;
using test::small_gguf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string bytes_of(const Tensor& tensor) {
  return std::string(reinterpret_cast<const char*>(tensor.raw()), tensor.bytes());
}

// What opening a file of these bytes and reading all of it says.
std::string open_error(const test::TemporaryDirectory& dir, std::string_view bytes) {
  write_file(dir / "x.gguf", bytes);
  return error_of([&] {
    const GgufFile file(dir / "x.gguf");
    for (const auto& entry : file.entries()) bytes_of(file.read(entry.name));
  });
}

// The same without a file, for many inputs.
std::string parse_error(std::string_view bytes) {
  const std::vector<char> exact(bytes.begin(), bytes.end());  // sanitizers see a read past its end
  const auto file = std::as_bytes(std::span(exact));
  return error_of([&] {
    const GgufHeader header = parse_gguf_header(file, "x");
    for (size_t i = 0; i < header.entries.size(); ++i) {
      const auto data = file.subspan(header.offsets[i], header.entries[i].bytes);
      volatile uint64_t hash =
          std::hash<std::string_view>()({reinterpret_cast<const char*>(data.data()), data.size()});
      (void)hash;
    }
  });
}

TEST(GgufFile, ReadsTheBytesOfTheSpecification) {
  test::TemporaryDirectory dir;
  for (const uint32_t version : {2u, 3u}) {
    GgufParts parts = small_gguf();
    parts.version = version;
    write_file(dir / "x.gguf", parts.give());
    Tensor kept;
    {
      const GgufFile file(dir / "x.gguf");
      EXPECT_EQ(file.format_name(), "gguf");
      EXPECT_EQ(open_checkpoint(dir / "x.gguf")->format_name(), "gguf");
      EXPECT_EQ(file.version(), version);
      EXPECT_EQ(file.file_count(), 1u);
      EXPECT_EQ(file.config(), nullptr);
      ASSERT_EQ(file.entries().size(), 2u);
      EXPECT_EQ(file.entries()[0].file, "x.gguf");
      EXPECT_EQ(file.total_bytes(), 24u + 34u);
      const Tensor a = file.read("a");
      EXPECT_EQ(a.shape(), (Shape{2, 3})) << "GGUF lists the fastest dimension first";
      EXPECT_EQ(a.to_floats(), (std::vector<float>{0, 1, 2, 3, 4, 5}));
      EXPECT_EQ(a.raw(), file.read("a").raw()) << "borrowed, not copied";
      file.release("a");
      EXPECT_EQ(a.to_floats()[5], 5.0f) << "released pages are read again";
      kept = file.read("blk.0.b");
      EXPECT_EQ(kept.dtype(), DType::q8_0);
    }
    EXPECT_EQ(bytes_of(kept).substr(0, 4), std::string("\x01\x3c\x00\x01", 4))
        << "a tensor keeps the mapping alive";
  }
}

TEST(GgufFile, KeepsTheExactTypesOfMetadata) {
  test::TemporaryDirectory dir;
  write_file(dir / "x.gguf", small_gguf().give());
  const GgufFile file(dir / "x.gguf");
  const Metadata& data = file.metadata();
  ASSERT_EQ(data.values().size(), 18u);
  for (const char* type : {"u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "u64", "i64", "f64"}) {
    EXPECT_EQ(exact_type_name(*data.find(type)), type);
  }
  EXPECT_EQ(data.values()[0].first, "general.architecture");
  EXPECT_EQ(data.integer("u8"), 255);
  EXPECT_EQ(data.integer("i8"), -2);
  EXPECT_EQ(data.integer("i16"), -3);
  EXPECT_EQ(data.integer("u32"), 4'000'000'000);
  EXPECT_EQ(data.integer("i64"), -5);
  EXPECT_EQ(data.number("f64"), 0.2);
  EXPECT_EQ(*data.find_exactly<float>("f32"), 0.1f);
  EXPECT_EQ(*data.find_exactly<uint64_t>("u64"), ~uint64_t{0});
  EXPECT_EQ(*data.find_exactly<std::vector<uint8_t>>("bytes"), (std::vector<uint8_t>{7, 8}));
  EXPECT_EQ(*data.find_exactly<std::vector<bool>>("flags"), (std::vector<bool>{true, false, true}));
  EXPECT_EQ(data.strings("tokens"), (std::vector<std::string>{"a", "", std::string("b\0c", 3)}));
  EXPECT_EQ(data.numbers("scores"), (std::vector<double>{-1, 0.5}));
  EXPECT_EQ(data.integers("types"), (std::vector<int64_t>{-3}));
  EXPECT_TRUE(data.strings("none").empty());
}

TEST(GgufFile, HonoursTheDeclaredAlignment) {
  test::TemporaryDirectory dir;
  for (const uint32_t alignment : {1u, 8u, 64u, 4096u}) {
    GgufParts parts;
    parts.alignment = alignment;
    parts.pairs = {gguf_pair("general.alignment", 4, Bytes().u32(alignment))};
    const uint64_t second = alignment == 1 ? 3 : alignment;
    parts.tensors = {gguf_tensor("a", {3}, 24, 0), gguf_tensor("f", {1}, 0, second)};
    parts.data = "\x01\x02\x03" + std::string(second - 3, '\0') + Bytes().f32(1.5f).str();
    write_file(dir / "x.gguf", parts.give());
    const GgufFile file(dir / "x.gguf");
    EXPECT_EQ(file.read("f").item(), 1.5f);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(file.read("f").raw()) % 4, 0u) << "unaligned data are copied";
    EXPECT_EQ(bytes_of(file.read("a")), "\x01\x02\x03");
  }
}

TEST(GgufFile, AllowsWhatTheFormatAllows) {
  test::TemporaryDirectory dir;
  GgufParts parts;
  EXPECT_EQ(open_error(dir, parts.give()), "(no error)") << "nothing at all";
  parts.pairs = {gguf_pair("a", 0, Bytes().u8(1))};
  EXPECT_EQ(open_error(dir, parts.give()), "(no error)") << "a vocabulary alone, unpadded";
  parts.tensors = {gguf_tensor("late", {2}, 24, 32), gguf_tensor("early", {2}, 24, 0),
                   gguf_tensor("scalar", {}, 24, 64), gguf_tensor("empty", {0, 3}, 0, 64)};
  parts.data = std::string(64, 'x') + "\x05";
  EXPECT_EQ(open_error(dir, parts.give()), "(no error)") << "any order, no padding at the end";
  const GgufFile file(dir / "x.gguf");
  EXPECT_EQ(file.entries()[0].name, "early") << "in the order of the data";
  EXPECT_EQ(file.read("scalar").shape(), Shape{});
  EXPECT_EQ(file.read("empty").shape(), (Shape{3, 0}));
}

struct Malformed {
  const char* what;
  std::string bytes;
  std::string error;  // what the sentence says after "[gguf] <path>: "
};

std::vector<Malformed> malformed_files() {
  const auto changed = [](auto&& change) {
    GgufParts parts = small_gguf();
    change(parts);
    return parts.give();
  };
  const auto with_pair = [&](uint32_t type, const Bytes& value) {
    return changed([&](GgufParts& parts) { parts.pairs = {gguf_pair("k", type, value)}; });
  };
  const auto with_tensor = [&](const std::string& tensor) {
    return changed([&](GgufParts& parts) { parts.tensors[0] = tensor; });
  };
  const uint64_t huge = uint64_t{1} << 61;
  std::string big_endian = small_gguf().give();
  std::swap(big_endian[4], big_endian[7]);
  return {
      {"empty", "", "expected a GGUF file, found an empty file"},
      {"another kind", "PK\x03\x04 and so on", "expected a GGUF file, found a ZIP archive"},
      {"no version", "GGUF\x03", "version: expected 4 bytes at offset 4, found the end of the file after 1"},
      {"version 1", changed([](GgufParts& p) { p.version = 1; }), "version: expected 2 or 3, found 1"},
      {"version 4", changed([](GgufParts& p) { p.version = 4; }), "version: expected 2 or 3, found 4"},
      {"big-endian", big_endian, "expected a little-endian file, found a big-endian one of version 3"},
      {"pairs beyond the file", changed([](GgufParts& p) { p.pair_count = int64_t{1} << 60; }),
       "number of key/value pairs: expected at most"},
      {"tensors beyond the file", changed([](GgufParts& p) { p.tensor_count = int64_t{1} << 60; }),
       "number of tensors: expected at most"},
      {"tensors beyond the rest of the file", changed([](GgufParts& p) { p.tensor_count = 60; }),
       "number of tensors: expected at most"},
      {"key runs past the end",
       changed([](GgufParts& p) { p.pairs[0] = Bytes().u64(uint64_t{1} << 60).str(); }),
       "metadata: key: expected 1152921504606846976 bytes"},
      {"empty key", changed([](GgufParts& p) { p.pairs[0] = gguf_pair("", 0, Bytes().u8(1)); }),
       "metadata: key 0: expected a name, found an empty one"},
      {"repeated key", changed([](GgufParts& p) { p.pairs[1] = p.pairs[0]; }),
       "key 'general.architecture': expected once, found twice"},
      {"unknown value type", with_pair(13, Bytes().u8(0)),
       "key 'k': value type: expected a type id from 0 to 12, found 13"},
      {"unknown element type", with_pair(9, Bytes().u32(77).u64(0)),
       "key 'k': element type: expected a type id from 0 to 12, found 77"},
      {"nested list", with_pair(9, Bytes().u32(9).u64(0)),
       "key 'k': expected a list of plain values, found a list of lists"},
      {"boolean of 2", with_pair(7, Bytes().u8(2)), "key 'k': expected a boolean of 0 or 1, found 2"},
      {"string past the end", with_pair(8, Bytes().u64(huge)),
       "key 'k': string: expected 2305843009213693952 bytes"},
      {"list of strings past the end", with_pair(9, Bytes().u32(8).u64(huge)),
       "key 'k': number of elements: expected at most"},
      {"list of numbers past the end", with_pair(9, Bytes().u32(12).u64(huge)),
       "key 'k': number of elements: expected at most"},
      {"list of booleans past the end", with_pair(9, Bytes().u32(7).u64(huge)),
       "key 'k': number of elements: expected at most"},
      {"alignment of the wrong type",
       changed([](GgufParts& p) { p.pairs[1] = gguf_pair("general.alignment", 10, Bytes().u64(32)); }),
       "key 'general.alignment': expected a u32, found u64"},
      {"alignment of zero",
       changed([](GgufParts& p) { p.pairs[1] = gguf_pair("general.alignment", 4, Bytes().u32(0)); }),
       "key 'general.alignment': expected a power of two, found 0"},
      {"alignment of 48",
       changed([](GgufParts& p) { p.pairs[1] = gguf_pair("general.alignment", 4, Bytes().u32(48)); }),
       "key 'general.alignment': expected a power of two, found 48"},
      {"tensor name past the end", with_tensor(Bytes().u64(huge).str()),
       "tensor 0: name: expected 2305843009213693952 bytes"},
      {"tensor without a name", with_tensor(gguf_tensor("", {1}, 0, 0)),
       "tensor 0: expected a name, found an empty one"},
      {"repeated tensor", with_tensor(gguf_tensor("blk.0.b", {1}, 0, 0)),
       "tensor 'blk.0.b': expected once, found twice"},
      {"five dimensions", with_tensor(gguf_tensor("a", {1, 1, 1, 1, 1}, 0, 0)),
       "tensor 'a': expected at most 4 dimensions, found 5"},
      {"a dimension of 2^62", with_tensor(gguf_tensor("a", {uint64_t{1} << 62}, 0, 0)),
       "tensor 'a': expected dimensions below 2^62, found 4611686018427387904"},
      {"too many elements", with_tensor(gguf_tensor("a", {huge, huge, huge}, 0, 0)),
       "tensor 'a': shape: more than 2^62 elements"},
      {"too many bytes", with_tensor(gguf_tensor("a", {huge}, 0, 0)),
       "tensor 'a': f32 (2305843009213693952): more than 2^63 bytes"},
      {"unknown type", with_tensor(gguf_tensor("a", {1}, 4, 0)),
       "tensor 'a': type: expected one of f64, f32, "},
      {"a type beyond every id", with_tensor(gguf_tensor("a", {1}, 0xffffffff, 0)),
       "found the unknown id 4294967295"},
      {"a row that is no whole block", with_tensor(gguf_tensor("a", {31}, 8, 0)),
       "tensor 'a': q8_0 (31): expected a last dimension that is a multiple of 32"},
      {"unaligned offset", with_tensor(gguf_tensor("a", {1}, 0, 4)),
       "tensor 'a': offset: expected a multiple of 32, found 4"},
      {"offset past the end", with_tensor(gguf_tensor("a", {1}, 0, 96)),
       "tensor 'a': expected its data within the file's 96 bytes of data, found 4 bytes at offset 96"},
      {"offset near 2^64", with_tensor(gguf_tensor("a", {1}, 0, ~uint64_t{31})),
       "tensor 'a': expected its data within the file's 96 bytes of data, found 4 bytes at offset "
       "18446744073709551584"},
      {"data past the end", with_tensor(gguf_tensor("a", {25}, 0, 0)),
       "tensor 'a': expected its data within the file's 96 bytes of data, found 100 bytes at offset 0"},
      {"overlap", with_tensor(gguf_tensor("a", {9}, 0, 0)),
       "tensor 'blk.0.b': offset: expected 36 or more, found 32, which overlaps tensor 'a'"},
      {"file 2 of a split under another name", changed([](GgufParts& p) {
         p.pairs[1] = gguf_pair("split.no", 2, Bytes().u16(1));
         p.pairs[2] = gguf_pair("split.count", 2, Bytes().u16(3));
       }),
       "file 2 of 3: expected a name that ends in '-00002-of-00003.gguf'"},
      {"file 4 of 3", changed([](GgufParts& p) {
         p.pairs[1] = gguf_pair("split.no", 2, Bytes().u16(3));
         p.pairs[2] = gguf_pair("split.count", 2, Bytes().u16(3));
       }),
       "expected a split.no below a split.count of at most 99999, found 3 and 3"},
  };
}

TEST(GgufFile, NamesWhatIsWrong) {
  test::TemporaryDirectory dir;
  for (const auto& file : malformed_files()) {
    const std::string found = open_error(dir, file.bytes);
    EXPECT_THAT(found, StartsWith(fmt::format("[gguf] {}: {}", dir / "x.gguf",
                                              file.error.starts_with("found") ? "" : file.error)))
        << file.what;
    EXPECT_THAT(found, HasSubstr(file.error)) << file.what;
  }
}

TEST(GgufFile, RefusesEveryTruncation) {
  const GgufParts parts = small_gguf();
  const std::string whole = parts.give();
  const size_t end_of_data = whole.size() - 30;  // the last tensor has 34 of 64 bytes
  for (size_t size = 0; size < end_of_data; ++size) {
    EXPECT_THAT(parse_error(whole.substr(0, size)), StartsWith("[gguf] ")) << size;
  }
  EXPECT_EQ(parse_error(whole.substr(0, end_of_data)), "(no error)");
}

// A flipped bit of the header is refused or leaves a file that can be read: never a crash (under the
// sanitizers) and never data from outside of the file.
TEST(GgufFile, SurvivesEveryFlippedBit) {
  const std::string whole = small_gguf().give();
  for (size_t bit = 0; bit < whole.size() * 8; ++bit) {
    std::string damaged = whole;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
    const std::string found = parse_error(damaged);
    EXPECT_TRUE(found == "(no error)" || found.starts_with("[gguf] ")) << "bit " << bit << ": " << found;
  }
}

double milliseconds(auto&& action) {
  const auto begin = std::chrono::steady_clock::now();
  action();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
}

// Opening reads the header only: a file of 64 GiB (all holes) opens at once.
TEST(GgufFile, OpensLargeFilesWithoutReadingThem) {
  test::TemporaryDirectory dir;
  GgufParts parts;
  const uint64_t rows = 1 << 12;
  parts.tensors = {gguf_tensor("a", {1 << 20, rows}, 0, 0),
                   gguf_tensor("b", {1 << 20, rows * 3}, 0, rows << 22)};
  parts.data = "";
  write_file(dir / "x.gguf", parts.give());
  std::error_code code;
  fs::resize_file(dir / "x.gguf", parts.give().size() + (rows << 24), code);
  if (code) GTEST_SKIP() << "this file system has no large files with holes: " << code.message();
  const double spent = milliseconds([&] {
    const GgufFile file(dir / "x.gguf");
    EXPECT_EQ(file.total_bytes(), uint64_t{1} << 36);
    EXPECT_EQ(file.read("b").dim(0), static_cast<int64_t>(rows * 3));
  });
  EXPECT_LT(spent, 1000) << "reading 64 GiB takes many seconds";
}

// A vocabulary of 256k tokens and as many merges is parsed in a fraction of a second, also by a slow build.
TEST(GgufFile, ReadsLargeVocabularies) {
  test::TemporaryDirectory dir;
  constexpr uint64_t kTokens = 1 << 18;
  Bytes tokens, merges;
  for (uint64_t i = 0; i < kTokens; ++i) {
    tokens.text(fmt::format("token{}", i));
    merges.text(fmt::format("left{} right and more{}", i, i));
  }
  GgufParts parts;
  parts.pairs = {gguf_pair("tokens", 9, Bytes().u32(8).u64(kTokens).raw(tokens.str())),
                 gguf_pair("merges", 9, Bytes().u32(8).u64(kTokens).raw(merges.str()))};
  write_file(dir / "x.gguf", parts.give());
  const double spent = milliseconds([&] {
    const GgufFile file(dir / "x.gguf");
    EXPECT_EQ(file.metadata().find_exactly<std::vector<std::string>>("tokens")->back(), "token262143");
  });
  RecordProperty("milliseconds", static_cast<int>(spent));
  EXPECT_LT(spent, 5000);
}

}  // namespace
}  // namespace qkv
