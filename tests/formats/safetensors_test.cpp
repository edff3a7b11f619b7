#include "qkv/formats/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cstring>
#include <ctime>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/core/rng.h"
#include "qkv/formats/safetensors_header.h"
#include "tests/formats/safetensors_bytes.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

using test::error_of;
using test::safetensors_bytes;
using test::small_safetensors;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string bytes_of(const Tensor& tensor) {
  return std::string(reinterpret_cast<const char*>(tensor.raw()), tensor.bytes());
}

// What opening a file of these bytes and reading all of it says.
std::string open_error(const test::TemporaryDirectory& dir, std::string_view bytes) {
  write_file(dir / "x.safetensors", bytes);
  return error_of([&] {
    const SafetensorsFile file(dir / "x.safetensors");
    for (const auto& entry : file.entries()) bytes_of(file.read(entry.name));
  });
}

TEST(SafetensorsFile, ReadsTheBytesOfTheSpecification) {
  test::TemporaryDirectory dir;
  write_file(dir / "x.safetensors", small_safetensors());
  Tensor kept;
  {
    const SafetensorsFile file(dir / "x.safetensors");
    EXPECT_EQ(file.format_name(), "safetensors");
    ASSERT_EQ(file.entries().size(), 2u);
    EXPECT_EQ(file.entries()[0].name, "a");
    EXPECT_EQ(file.entries()[0].file, "x.safetensors");
    EXPECT_EQ(file.entries()[0].bytes, 24u);
    EXPECT_EQ(file.total_bytes(), 28u);
    EXPECT_EQ(file.metadata().string("format"), "pt");
    EXPECT_EQ(file.config(), nullptr);
    const Tensor a = file.read("a");
    EXPECT_EQ(a.shape(), (Shape{2, 3}));
    EXPECT_EQ(a.to_floats(), (std::vector<float>{0, 1, 2, 3, 4, 5}));
    EXPECT_EQ(a.raw(), file.read("a").raw()) << "borrowed, not copied";
    file.release("a");
    EXPECT_EQ(a.to_floats()[5], 5.0f) << "released pages are read again";
    kept = file.read("b");
    EXPECT_EQ(file.find("c"), nullptr);
  }
  EXPECT_EQ(bytes_of(kept), std::string("\x01\x02\x03\x04")) << "a tensor keeps the mapping alive";
}

TEST(SafetensorsFile, NamesTheNearestTensor) {
  test::TemporaryDirectory dir;
  SafetensorsWriter writer(dir / "x.safetensors", {{"layer.weight", DType::f32, Shape{1}}});
  writer.write("layer.weight", Tensor::zeros(Shape{1}));
  writer.finish();
  EXPECT_THAT(error_of([&] { SafetensorsFile(dir / "x.safetensors").read("layers.weight"); }),
              HasSubstr("tensor 'layers.weight': expected in the checkpoint, found 1 others; did you mean "
                        "'layer.weight'?"));
}

TEST(SafetensorsFile, ReadsUnalignedDataByCopying) {
  test::TemporaryDirectory dir;
  const float value = 1.5f;
  std::string data("\x07", 1);
  data.append(reinterpret_cast<const char*>(&value), 4);
  for (const std::string padding : {"", " ", "  ", "   "}) {
    const std::string header = R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                               R"("b":{"dtype":"F32","shape":[],"data_offsets":[1,5]}})" +
                               padding;
    write_file(dir / "x.safetensors", safetensors_bytes(header, data));
    const SafetensorsFile file(dir / "x.safetensors");
    const Tensor b = file.read("b");
    EXPECT_EQ(reinterpret_cast<uintptr_t>(b.raw()) % 4, 0u);
    EXPECT_EQ(b.item(), 1.5f);
    EXPECT_EQ(bytes_of(file.read("a")), "\x07");
  }
}

TEST(SafetensorsFile, KeepsEmptyTensorsAndScalars) {
  test::TemporaryDirectory dir;
  write_file(dir / "x.safetensors",
             safetensors_bytes(R"({"s":{"dtype":"U8","shape":[],"data_offsets":[0,1]},)"
                               R"("e":{"dtype":"F32","shape":[3,0],"data_offsets":[1,1]},)"
                               R"("z":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}})",
                               "\x05"));
  const SafetensorsFile file(dir / "x.safetensors");
  EXPECT_EQ(file.read("e").shape(), (Shape{3, 0}));
  EXPECT_EQ(file.read("z").bytes(), 0u);
  EXPECT_EQ(bytes_of(file.read("s")), "\x05");
  write_file(dir / "none.safetensors", safetensors_bytes("{}", ""));
  EXPECT_TRUE(SafetensorsFile(dir / "none.safetensors").entries().empty());
}

TEST(SafetensorsFile, IgnoresUnknownKeysOfATensor) {
  test::TemporaryDirectory dir;
  EXPECT_EQ(
      open_error(dir, safetensors_bytes(R"({"a":{"note":{"x":[1,{"dtype":3}]},"dtype":"U8","shape":[1],)"
                                        R"("strides":[1],"data_offsets":[0,1]},"__metadata__":null})",
                                        "x")),
      "(no error)");
}

struct Malformed {
  const char* what;
  std::string bytes;
  std::string error;  // what the sentence says after "[safetensors] <path>: "
};

std::vector<Malformed> malformed_files() {
  const auto one = [](std::string_view tensor, std::string_view data = "12345678") {
    return safetensors_bytes(fmt::format("{{\"x\":{}}}", tensor), data);
  };
  const auto with = [&](std::string_view type, std::string_view shape, std::string_view offsets) {
    return one(fmt::format(R"({{"dtype":{},"shape":{},"data_offsets":{}}})", type, shape, offsets));
  };
  const auto two = [](std::string_view first, std::string_view second, std::string_view data = "12345678") {
    return safetensors_bytes(fmt::format(R"({{"x":{{"dtype":"U8","shape":[4],"data_offsets":{}}},)"
                                         R"("y":{{"dtype":"U8","shape":[4],"data_offsets":{}}}}})",
                                         first, second),
                             data);
  };
  const std::string huge_length("\xff\xff\xff\xff\xff\xff\xff\x7f{}", 10);
  const std::string long_length("\x40\x00\x00\x00\x00\x00\x00\x00{}", 10);
  const std::string keys = "tensor 'x': expected the keys dtype, shape and data_offsets, found no ";
  return {
      {"empty", "", "expected a safetensors file, found an empty file"},
      {"short", "1234567", "expected at least 8 bytes, found 7"},
      {"header limit", huge_length,
       "header length: expected at most 100000000 bytes, found 9223372036854775807"},
      {"header past the end", long_length,
       "header length: expected at most the 2 bytes that follow, found 64"},
      {"no header", safetensors_bytes("", "x"),
       "header: expected a JSON object that begins with '{', found nothing"},
      {"list", safetensors_bytes("[]", ""),
       "header: expected a JSON object that begins with '{', found '[]'"},
      {"leading space", safetensors_bytes(" {}", ""),
       "header: expected a JSON object that begins with '{', found ' {}'"},
      {"not JSON", safetensors_bytes("{\"x\":}", ""),
       "header: not valid JSON: parse error at line 1, column 6"},
      {"text after", safetensors_bytes("{} {}", ""), "header: not valid JSON: parse error"},
      {"not UTF-8", safetensors_bytes("{\"\xff\":1}", ""), "header: not valid JSON: parse error"},
      {"deep",
       safetensors_bytes("{\"x\":{\"n\":" + std::string(1000, '[') + std::string(1000, ']') + "}}", ""),
       "header: JSON nested deeper than 512 levels"},
      {"tensor is a number", one("3"), "tensor 'x': expected an object, found the number 3"},
      {"tensor is a list", one("[]"), "tensor 'x': expected an object, found a list"},
      {"no dtype", one(R"({"shape":[8],"data_offsets":[0,8]})"), keys + "dtype"},
      {"no shape", one(R"({"dtype":"U8","data_offsets":[0,8]})"), keys + "shape"},
      {"no offsets", one(R"({"dtype":"U8","shape":[8]})"), keys + "data_offsets"},
      {"dtype number", with("3", "[8]", "[0,8]"), "tensor 'x': dtype: expected a string, found the number 3"},
      {"dtype list", with("[]", "[8]", "[0,8]"), "tensor 'x': dtype: expected a string, found a list"},
      {"unknown dtype", with("\"U9\"", "[8]", "[0,8]"),
       "tensor 'x': dtype: expected one of F64, F32, BF16, F16, F8_E4M3, F8_E5M2, I64, I32, I16, I8, U64, "
       "U32, U16, U8, BOOL, "
       "found 'U9'"},
      {"unsupported dtype", with("\"C64\"", "[1]", "[0,8]"), "tensor 'x': dtype: expected one of"},
      {"shape number", with("\"U8\"", "8", "[0,8]"),
       "tensor 'x': shape: expected a list of integers, found the number 8"},
      {"shape object", with("\"U8\"", "{}", "[0,8]"),
       "tensor 'x': shape: expected a list of integers, found an object"},
      {"nested shape", with("\"U8\"", "[[8]]", "[0,8]"),
       "tensor 'x': shape: expected a list of integers, found a list in it"},
      {"negative shape", with("\"U8\"", "[-8]", "[0,8]"),
       "tensor 'x': shape: expected integers from 0 up, found the number -8"},
      {"real shape", with("\"U8\"", "[8.5]", "[0,8]"),
       "tensor 'x': shape: expected integers from 0 up, found the number 8.5"},
      {"text in shape", with("\"U8\"", "[\"8\"]", "[0,8]"),
       "tensor 'x': shape: expected integers from 0 up, found a string"},
      {"huge dimension", with("\"U8\"", "[18446744073709551615]", "[0,8]"),
       "tensor 'x': shape: expected dimensions below 2^62, found 18446744073709551615"},
      {"beyond 64 bits", with("\"U8\"", "[18446744073709551616]", "[0,8]"),
       "tensor 'x': shape: expected integers from 0 up"},
      {"overflowing shape", with("\"U8\"", "[4294967296,4294967296,8]", "[0,8]"),
       "tensor 'x': shape: more than 2^62 elements"},
      {"overflowing bytes", with("\"F64\"", "[2305843009213693952]", "[0,8]"),
       "tensor 'x': f64 (2305843009213693952): more than 2^63"},
      {"five dimensions", with("\"U8\"", "[1,1,1,1,8]", "[0,8]"),
       "tensor 'x': shape: expected at most 4 dimensions, found 5"},
      {"one offset", with("\"U8\"", "[8]", "[0]"), "tensor 'x': data_offsets: expected 2 integers, found 1"},
      {"three offsets", with("\"U8\"", "[8]", "[0,8,8]"),
       "tensor 'x': data_offsets: expected 2 integers, found 3"},
      {"negative offset", with("\"U8\"", "[8]", "[-1,7]"),
       "tensor 'x': data_offsets: expected integers from 0 up, found the number -1"},
      {"begin after end", with("\"U8\"", "[8]", "[8,0]"),
       "tensor 'x': data_offsets: expected begin <= end, found [8, 0]"},
      {"wrong size", with("\"F32\"", "[3]", "[0,8]"),
       "tensor 'x': data_offsets: expected 12 bytes for F32 (3), found [0, 8] (8 bytes)"},
      {"past the end", one(R"({"dtype":"U8","shape":[9],"data_offsets":[0,9]})"),
       "tensor 'x': data_offsets: expected an end within the file's 8 bytes of data, found [0, 9]"},
      {"end of the world",
       one(R"({"dtype":"U8","shape":[1],"data_offsets":[18446744073709551614,18446744073709551615]})"),
       "tensor 'x': data_offsets: expected an end within"},
      {"overlap", two("[0,4]", "[3,7]", "1234567"),
       "tensor 'y': data_offsets: expected a begin of 4 or more, found 3, which overlaps tensor 'x'"},
      {"same place", two("[0,4]", "[0,4]", "1234"),
       "tensor 'y': data_offsets: expected a begin of 4 or more, found 0"},
      {"hole", two("[0,4]", "[5,9]", "123456789"),
       "tensor 'y': data_offsets: expected a begin of 4, found 5, which leaves a hole of 1 bytes"},
      {"hole at the start", two("[5,9]", "[1,5]", "123456789"),
       "tensor 'y': data_offsets: expected a begin of 0, found 1"},
      {"data after", two("[0,4]", "[4,8]", "123456789"), "expected 8 bytes of data by the header, found 9"},
      {"duplicate tensor",
       safetensors_bytes(R"({"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                         R"("x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
                         "1"),
       "tensor 'x': expected once in the header, found twice"},
      {"duplicate key", one(R"({"dtype":"U8","shape":[8],"shape":[8],"data_offsets":[0,8]})"),
       "tensor 'x': shape: expected once, found twice"},
      {"metadata number", safetensors_bytes(R"({"__metadata__":{"a":1}})", ""),
       "__metadata__: a: expected a string, found the number 1"},
      {"metadata object", safetensors_bytes(R"({"__metadata__":{"a":{}}})", ""),
       "__metadata__: a: expected a string, found an object"},
      {"metadata text", safetensors_bytes(R"({"__metadata__":"a"})", ""),
       "__metadata__: expected an object, found a string"},
      {"GGUF", "GGUF\x03 and so on", "expected a safetensors file, found a GGUF file"},
      {"Git LFS", "version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
       "expected a safetensors file, found a Git LFS pointer instead of the data"},
  };
}

TEST(SafetensorsFile, RefusesEveryMalformedFileWithASentence) {
  test::TemporaryDirectory dir;
  for (const auto& file : malformed_files()) {
    EXPECT_THAT(open_error(dir, file.bytes),
                StartsWith(fmt::format("[safetensors] {}: {}", dir / "x.safetensors", file.error)))
        << file.what;
  }
}

TEST(SafetensorsFile, ShowsHostileNamesHarmlessly) {
  test::TemporaryDirectory dir;
  const std::string header = "{\"\\u001b[31m" + std::string(100000, 'n') + "\":3}";
  const std::string message = open_error(dir, safetensors_bytes(header, ""));
  EXPECT_LT(message.size(), 500u);
  EXPECT_EQ(message.find('\x1b'), std::string::npos);
}

TEST(SafetensorsFile, RefusesTruncationAtEveryByte) {
  test::TemporaryDirectory dir;
  const std::string whole = small_safetensors();
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_THAT(open_error(dir, std::string_view(whole).substr(0, size)), StartsWith("[safetensors] "))
        << size << " bytes";
  }
  EXPECT_EQ(open_error(dir, whole), "(no error)");
}

TEST(SafetensorsFile, SurvivesFlippedBits) {
  const std::string whole = small_safetensors();
  Rng rng(7);
  int refused = 0;
  for (int round = 0; round < 10000; ++round) {
    std::string bytes = whole;
    const uint64_t flips = 1 + rng.below(4);
    for (uint64_t i = 0; i < flips; ++i) {
      const uint64_t bit = rng.below(bytes.size() * 8);
      bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << (bit % 8)));
    }
    // The exact size on the heap, so that a sanitizer sees every read past the end.
    const std::vector<char> exact(bytes.begin(), bytes.end());
    try {
      const auto header = parse_safetensors_header(std::as_bytes(std::span(exact)), "flipped");
      for (size_t i = 0; i < header.entries.size(); ++i) {
        ASSERT_LE(header.offsets[i] + header.entries[i].bytes, exact.size());
      }
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), StartsWith("[safetensors] flipped: "));
      ++refused;
    }
  }
  EXPECT_GT(refused, 5000) << "most of the file is its header";
}

TEST(SafetensorsFile, ReadsAHundredThousandTensorsAtOnce) {
  std::vector<TensorEntry> entries;
  for (int i = 0; i < 100000; ++i)
    entries.push_back({fmt::format("model.layers.{}.w", i), DType::u8, Shape{1}, 1, ""});
  const std::string bytes = make_safetensors_header(entries, {}, "many") + std::string(entries.size(), 'x');
  const std::clock_t start = std::clock();
  EXPECT_EQ(parse_safetensors_header(std::as_bytes(std::span(bytes)), "many").entries.size(), entries.size());
  const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
  EXPECT_LT(seconds, 5.0) << "of this process's time: linear, not quadratic";
  RecordProperty("milliseconds", static_cast<int>(seconds * 1000));
}

TEST(SafetensorsWriter, WritesTheBytesOfTheSpecification) {
  test::TemporaryDirectory dir;
  SafetensorsWriter writer(dir / "x.safetensors",
                           {{"b", DType::u8, Shape{4}}, {"a", DType::f32, Shape{2, 3}}});
  ASSERT_EQ(writer.entries()[0].name, "a") << "the larger element first";
  writer.write("a", Tensor::from(std::vector<float>{0, 1, 2, 3, 4, 5}, Shape{2, 3}));
  writer.write("b", Tensor::from(std::vector<uint8_t>{1, 2, 3, 4}, Shape{4}));
  writer.finish();
  EXPECT_EQ(read_file(dir / "x.safetensors"), small_safetensors());
  EXPECT_EQ(writer.file_bytes(), small_safetensors().size());
}

TEST(SafetensorsWriter, RoundTripsEveryType) {
  test::TemporaryDirectory dir;
  std::vector<TensorEntry> entries;
  std::map<std::string, Tensor> tensors;
  Rng rng(3);
  for (int i = 0; i < kDTypeCount; ++i) {
    const DType type = static_cast<DType>(i);
    if (traits(type).safetensors.empty()) continue;
    const std::string tensor_name = fmt::format("tensor \"{}\" ü\n", name(type));
    const Tensor tensor = Tensor::empty(Shape{3, 5}, type);
    for (uint64_t k = 0; k < tensor.bytes(); ++k) {
      const_cast<std::byte*>(tensor.raw())[k] =
          static_cast<std::byte>(type == DType::boolean ? k & 1 : rng.below(256));
    }
    entries.push_back({tensor_name, type, tensor.shape()});
    tensors.emplace(tensor_name, tensor);
  }
  ASSERT_EQ(entries.size(), 15u);
  for (const TensorOrder order : {TensorOrder::aligned, TensorOrder::given}) {
    SafetensorsWriter writer(dir / "x.safetensors", entries, order, {{"key \"quoted\"", "value"}});
    for (const auto& entry : writer.entries()) writer.write(entry.name, tensors.at(entry.name));
    writer.finish();
    const std::string bytes = read_file(dir / "x.safetensors");
    EXPECT_EQ(safetensors_header_length(std::as_bytes(std::span(bytes))) % 8, 0u);
    const SafetensorsFile file(dir / "x.safetensors");
    EXPECT_EQ(file.metadata().string("key \"quoted\""), "value");
    ASSERT_EQ(file.entries().size(), entries.size());
    for (const auto& entry : entries) {
      const Tensor read = file.read(entry.name);
      EXPECT_EQ(read.dtype(), entry.type);
      EXPECT_EQ(bytes_of(read), bytes_of(tensors.at(entry.name))) << entry.name;
      if (order == TensorOrder::aligned) {
        EXPECT_EQ(read.raw(), file.read(entry.name).raw()) << entry.name << " is aligned, so never copied";
      }
    }
    if (order == TensorOrder::given) {
      EXPECT_EQ(file.entries()[0].name, entries[0].name);
    }
  }
}

TEST(SafetensorsWriter, RefusesWhatTheFormatCannotHold) {
  test::TemporaryDirectory dir;
  const auto refusal = [&](std::vector<TensorEntry> entries) {
    return error_of([&] { SafetensorsWriter(dir / "x.safetensors", std::move(entries)); });
  };
  EXPECT_THAT(refusal({{"q", DType::q4_k, Shape{256}}}),
              HasSubstr("tensor 'q': expected one of the format's types, F64"));
  EXPECT_THAT(refusal({{"q", DType::q4_k, Shape{8}}}), HasSubstr("multiple of 256"));
  EXPECT_THAT(refusal({{"a", DType::f32, Shape{1}}, {"a", DType::f32, Shape{1}}}),
              HasSubstr("tensor 'a': expected once, found twice"));
  EXPECT_THAT(refusal({{"__metadata__", DType::f32, Shape{1}}}), HasSubstr("reserved"));
  EXPECT_THAT(refusal({{"\xff", DType::f32, Shape{1}}}), HasSubstr("expected valid UTF-8"));
  EXPECT_TRUE(std::filesystem::is_empty(dir.path())) << "nothing is left behind";
}

TEST(SafetensorsWriter, HoldsTheCallerToTheList) {
  test::TemporaryDirectory dir;
  {
    SafetensorsWriter writer(dir / "x.safetensors",
                             {{"a", DType::f32, Shape{1}}, {"b", DType::f32, Shape{2}}});
    EXPECT_THAT(error_of([&] { writer.write("b", Tensor::zeros(Shape{2})); }),
                HasSubstr("tensor 'b': expected tensor 'a' next"));
    EXPECT_THAT(error_of([&] { writer.write("a", Tensor::zeros(Shape{3})); }),
                HasSubstr("tensor 'a': expected f32 (1), found f32 (3)"));
    EXPECT_THAT(error_of([&] { writer.write("a", Tensor::zeros(Shape{1}, DType::bf16)); }),
                HasSubstr("tensor 'a': expected f32 (1), found bf16 (1)"));
    EXPECT_THAT(error_of([&] { writer.write("a", Tensor()); }), HasSubstr("found nothing"));
    writer.write("a", Tensor::zeros(Shape{1}));
    EXPECT_THAT(error_of([&] { writer.finish(); }),
                HasSubstr("tensor 'b': expected before the file is finished"));
  }
  EXPECT_TRUE(std::filesystem::is_empty(dir.path())) << "nothing is left behind";
}

TEST(SafetensorsWriter, NamesTheFullDiskAndLeavesNothing) {
  test::TemporaryDirectory dir;
  const std::string mount_point = dir / "small";
  std::filesystem::create_directory(mount_point);
  if (::mount("tmpfs", mount_point.c_str(), "tmpfs", 0, "size=64k") != 0)
    GTEST_SKIP() << "mounting a small tmpfs needs root";
  for (const int64_t elements : {20000, 2000000}) {  // fails on the last flush; fails in the middle
    const std::string path = mount_point + "/x.safetensors";
    const std::string message = error_of([&] {
      SafetensorsWriter writer(path, {{"a", DType::f32, Shape{elements}}});
      writer.write("a", Tensor::zeros(Shape{elements}));
      writer.finish();
    });
    EXPECT_THAT(message, HasSubstr(path));
    EXPECT_THAT(message, HasSubstr("No space left on device"));
    EXPECT_TRUE(std::filesystem::is_empty(mount_point));
  }
  ::umount(mount_point.c_str());
}

}  // namespace
}  // namespace qkv
