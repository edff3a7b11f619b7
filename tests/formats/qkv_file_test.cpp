#include "qkv/formats/qkv_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/core/rng.h"
#include "qkv/formats/hf_directory.h"
#include "tests/formats/qkv_bytes.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

namespace fs = std::filesystem;
using test::Bytes;
using test::error_of;
using test::qkv_record;
using test::QkvParts;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

const std::string kConfig = R"({"model_type": "llama", "rope_theta": 10000.0})";

std::string bytes_of(const Tensor& tensor) {
  return std::string(reinterpret_cast<const char*>(tensor.raw()), tensor.bytes());
}

std::string floats(int first, int count) {
  Bytes bytes;
  for (int i = 0; i < count; ++i) bytes.f32(static_cast<float>(first + i));
  return bytes.str();
}

std::string block() {
  std::string bytes("\x00\x3c", 2);  // a Q8_0 block: the scale, 32 codes
  for (int i = 0; i < 32; ++i) bytes += static_cast<char>(i);
  return bytes;
}

// A configuration, a matrix in two chunks, a block, metadata of two types.
QkvParts small_qkv() {
  QkvParts parts;
  Bytes data;
  data.raw(kConfig).align(64).raw(floats(0, 6)).align(64).raw(block()).align(8);
  parts.data = data.str();
  parts.pairs = {Bytes().text("general.architecture").u32(8).text("llama").str(),
                 Bytes().text("count").u32(2).u16(7).str()};
  const uint64_t n = kConfig.size();
  parts.files = {qkv_record("config.json", "u8", {n}, n, n, 64, {{0, kConfig}})};
  parts.tensors = {qkv_record("a", "f32", {2, 3}, 12, 12, 128, {{0, floats(0, 3)}, {0, floats(3, 3)}}),
                   qkv_record("b", "q8_0", {32}, 34, 34, 192, {{0, block()}})};
  return parts;
}

std::span<const std::byte> as_file(const std::vector<char>& bytes) {
  return std::as_bytes(std::span(bytes));
}

// Opening, reading and verifying these bytes: the first error, the first defect, or "".
std::string complaint(std::string_view bytes) {
  const std::vector<char> exact(bytes.begin(), bytes.end());  // sanitizers see a read past its end
  try {
    const QkvDirectory directory = parse_qkv(as_file(exact), "x");
    const auto defects = verify_qkv(as_file(exact), directory, "x", [](uint64_t, uint64_t) {});
    if (!defects.empty()) return defects[0];
    for (const auto* records : {&directory.files, &directory.tensors}) {
      for (const auto& record : *records) decode_qkv_record(as_file(exact), directory, record, "record", "x");
    }
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

TEST(QkvFile, ReadsTheBytesOfTheSpecification) {
  test::TemporaryDirectory dir;
  write_file(dir / "x.qkv", small_qkv().give());
  Tensor kept;
  {
    const QkvFile file(dir / "x.qkv");
    EXPECT_EQ(file.format_name(), "qkv");
    EXPECT_EQ(file.metadata().string("general.architecture"), "llama");
    EXPECT_EQ(*file.metadata().find_exactly<uint16_t>("count"), 7);
    ASSERT_NE(file.config(), nullptr);
    EXPECT_EQ(file.config()->at("model_type"), "llama");
    EXPECT_EQ(file.generation_config(), nullptr);
    EXPECT_THAT(file.file_names(), ElementsAre("config.json"));
    EXPECT_EQ(file.file("config.json"), kConfig);
    EXPECT_EQ(file.file("tokenizer.json"), std::nullopt);
    ASSERT_EQ(file.entries().size(), 2u);
    EXPECT_EQ(file.entries()[0].file, "x.qkv");
    EXPECT_EQ(file.total_bytes(), 24u + 34u);
    const Tensor a = file.read("a");
    EXPECT_EQ(a.shape(), (Shape{2, 3}));
    EXPECT_EQ(a.to_floats(), (std::vector<float>{0, 1, 2, 3, 4, 5}));
    EXPECT_EQ(a.raw(), file.read("a").raw()) << "borrowed, not copied";
    EXPECT_EQ(reinterpret_cast<uintptr_t>(a.raw()) % 64, 0u);
    file.release("a");
    EXPECT_EQ(a.to_floats()[5], 5.0f) << "released pages are read again";
    EXPECT_TRUE(file.has_checksums());
    EXPECT_THAT(file.verify(), IsEmpty());
    kept = file.read("b");
    EXPECT_EQ(kept.dtype(), DType::q8_0);
  }
  EXPECT_EQ(bytes_of(kept), block()) << "a tensor keeps the mapping alive";
  EXPECT_EQ(open_checkpoint(dir / "x.qkv")->format_name(), "qkv");
}

TEST(QkvWriter, WritesTheBytesOfTheSpecification) {
  test::TemporaryDirectory dir;
  const std::string whole = small_qkv().give();
  write_file(dir / "x.qkv", whole);
  const QkvFile source(dir / "x.qkv");
  QkvWriterOptions options;
  options.chunk_bytes = 60;  // room for the configuration, for the block, for five rows of 12 bytes
  QkvWriter one(dir / "y.qkv", source.entries(), source.metadata(), {{"config.json", kConfig}}, options);
  for (const auto& entry : one.entries()) one.write(entry.name, source.read(entry.name));
  one.finish();
  // In one chunk, then.
  QkvParts parts = small_qkv();
  parts.tensors[0] = qkv_record("a", "f32", {2, 3}, 12, 60, 128, {{0, floats(0, 6)}});
  parts.tensors[1] = qkv_record("b", "q8_0", {32}, 34, 34, 192, {{0, block()}});
  EXPECT_EQ(read_file(dir / "y.qkv"), parts.give());
}

TEST(QkvWriter, RoundTripsEveryTypeAndOption) {
  test::TemporaryDirectory dir;
  std::vector<TensorEntry> entries;
  std::vector<Tensor> tensors;
  Rng rng(7);
  const auto add = [&](const std::string& name, DType type, const Shape& shape) {
    entries.push_back({name, type, shape});
    tensors.push_back(Tensor::empty(shape, type));
    for (uint64_t b = 0; b < tensors.back().bytes(); ++b) {
      tensors.back().raw()[b] = static_cast<std::byte>(rng.next_u32());
    }
  };
  for (int i = 0; i < kDTypeCount; ++i) {
    const auto type = static_cast<DType>(i);
    add(std::string(name(type)), type, Shape{2, 3, traits(type).block_length * 2});
  }
  add("scalar", DType::f32, Shape{});
  add("empty", DType::bf16, Shape{3, 0});
  add("none", DType::u8, Shape{0, 5});
  add("vector", DType::f16, Shape{1001});
  add("long rows", DType::q4_k, Shape{3, 256 * 40});
  Metadata metadata;
  metadata.set("z", 0.5f);
  metadata.set("a", std::vector<std::string>{"one", ""});
  const std::vector<std::pair<std::string, std::string>> files = {
      {"tokenizer.model", std::string("\0\xff\x01", 3)},
      {"empty.txt", ""},
      {"long.txt", std::string(5000, 'x')}};

  for (const QkvWriterOptions& options :
       {QkvWriterOptions{}, QkvWriterOptions{4096, 1000, 1}, QkvWriterOptions{8, 1, 1},
        QkvWriterOptions{64, 50, 16}, QkvWriterOptions{64, 1 << 20, 100}}) {
    QkvWriter writer(dir / "x.qkv", entries, metadata, files, options);
    for (size_t i = 0; i < entries.size(); ++i) writer.write(entries[i].name, tensors[i]);
    writer.finish();
    const QkvFile file(dir / "x.qkv");
    EXPECT_EQ(file.metadata().values(), metadata.values());
    EXPECT_THAT(file.file_names(), ElementsAre("tokenizer.model", "empty.txt", "long.txt"));
    for (const auto& [name, content] : files) EXPECT_EQ(file.file(name), content);
    ASSERT_EQ(file.entries().size(), entries.size());
    for (size_t i = 0; i < entries.size(); ++i) {
      EXPECT_EQ(file.entries()[i].name, entries[i].name);
      EXPECT_EQ(file.entries()[i].type, entries[i].type);
      EXPECT_EQ(file.entries()[i].shape, entries[i].shape);
      const Tensor found = file.read(entries[i].name);
      EXPECT_EQ(bytes_of(found), bytes_of(tensors[i]))
          << entries[i].name << ", rows of " << options.row_alignment;
      if (options.row_alignment == 1) {
        EXPECT_EQ(found.raw(), file.read(entries[i].name).raw()) << "borrowed";
        EXPECT_EQ(reinterpret_cast<uintptr_t>(found.raw()) % options.alignment, 0u);
      }
      file.release(entries[i].name);
    }
    EXPECT_THAT(file.verify(), IsEmpty());
  }
}

TEST(QkvWriter, RefusesWhatCannotBe) {
  test::TemporaryDirectory dir;
  const auto writing = [&](std::vector<TensorEntry> entries,
                           std::vector<std::pair<std::string, std::string>> files = {},
                           QkvWriterOptions options = {}) {
    const std::string found =
        error_of([&] { QkvWriter(dir / "x.qkv", std::move(entries), Metadata(), files, options); });
    EXPECT_TRUE(fs::is_empty(dir.path())) << "nothing is left behind";
    return found;
  };
  const TensorEntry one = {"a", DType::f32, Shape{2}};
  EXPECT_THAT(writing({one, one}), HasSubstr("tensor 'a': expected once, found twice"));
  EXPECT_THAT(writing({{"", DType::f32, Shape{2}}}),
              HasSubstr("tensor: expected a name, found an empty one"));
  EXPECT_THAT(writing({{"a", DType::q4_k, Shape{192}}}),
              HasSubstr("tensor 'a': q4_k (192): expected a last dimension"));
  EXPECT_THAT(writing({}, {{"../x", ""}}), HasSubstr("file '../x': expected a plain file name"));
  EXPECT_THAT(writing({}, {{"x", ""}, {"x", ""}}), HasSubstr("file 'x': expected once, found twice"));
  EXPECT_THAT(writing({}, {}, {48}),
              HasSubstr("alignment: expected a power of two from 8 to 1048576, found 48"));
  EXPECT_THAT(writing({}, {}, {64, 0}), HasSubstr("expected positive sizes of chunks"));
  QkvWriter writer(dir / "x.qkv", {one}, Metadata());
  EXPECT_THAT(error_of([&] { writer.write("a", Tensor::zeros(Shape{3})); }),
              HasSubstr("expected f32 (2), found f32 (3)"));
  EXPECT_THAT(error_of([&] { writer.finish(); }),
              HasSubstr("tensor 'a': expected before the file is finished"));
  EXPECT_FALSE(fs::exists(dir / "x.qkv"));
}

TEST(QkvFile, ReadsRowsWithPadding) {
  test::TemporaryDirectory dir;
  QkvParts parts;
  // Rows of 8 bytes and 4 of padding, which need not be zero; chunks of 10 begin and end anywhere.
  const std::string stored = "abcdefgh????ijklmnop????qrstuvwx????";
  parts.data = stored;
  parts.tensors = {qkv_record("a", "i8", {3, 8}, 12, 10, 64,
                              {{0, stored.substr(0, 10)},
                               {0, stored.substr(10, 10)},
                               {0, stored.substr(20, 10)},
                               {0, stored.substr(30)}})};
  write_file(dir / "x.qkv", parts.give());
  const QkvFile file(dir / "x.qkv");
  EXPECT_EQ(bytes_of(file.read("a")), "abcdefghijklmnopqrstuvwx");
  EXPECT_THAT(file.verify(), IsEmpty());
}

TEST(QkvFile, OpensWhatItCannotDecode) {
  test::TemporaryDirectory dir;
  QkvParts parts;
  parts.data = "12345678" + std::string(56, '\0') + "abc";
  parts.codecs = {{"raw", ""}, {"future", "a dictionary"}};
  // It would have 2^50 bytes.
  parts.tensors = {qkv_record("plain", "u8", {8}, 8, 8, 64, {{0, "12345678"}}),
                   qkv_record("coded", "u8", {uint64_t{1} << 50}, uint64_t{1} << 50, uint64_t{1} << 50, 128,
                              {{1, "abc"}})};
  write_file(dir / "x.qkv", parts.give());
  const QkvFile file(dir / "x.qkv");
  EXPECT_EQ(bytes_of(file.read("plain")), "12345678");
  EXPECT_THAT(file.verify(), IsEmpty()) << "checksums are of the encoded bytes";
  EXPECT_EQ(error_of([&] { file.read("coded"); }),
            fmt::format("[qkv] {}: tensor 'coded': expected a codec that this program knows, found 'future'",
                        dir / "x.qkv"));
}

TEST(QkvFile, FindsEveryFlippedBit) {
  const std::string whole = small_qkv().give();
  ASSERT_EQ(complaint(whole), "");
  for (size_t bit = 0; bit < whole.size() * 8; ++bit) {
    std::string damaged = whole;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
    EXPECT_THAT(complaint(damaged), StartsWith("[qkv] x: ")) << "bit " << bit;
  }
}

TEST(QkvFile, NamesWhereTheDamageIs) {
  const QkvParts parts = small_qkv();
  const std::string whole = parts.give();
  const size_t directory = 64 + parts.data.size();
  const auto flipped = [&](size_t offset) {
    std::string damaged = whole;
    damaged[offset] = static_cast<char>(damaged[offset] ^ 4);
    return complaint(damaged);
  };
  EXPECT_THAT(flipped(20), HasSubstr("the prologue at offset 0 is damaged: expected the checksum"));
  EXPECT_THAT(flipped(64 + 3), HasSubstr("file 'config.json': chunk 0 at offset 64: expected the checksum"));
  EXPECT_THAT(flipped(128 + 3), HasSubstr("tensor 'a': chunk 0 at offset 128: expected the checksum"));
  EXPECT_THAT(flipped(128 + 12), HasSubstr("tensor 'a': chunk 1 at offset 140: expected the checksum"));
  EXPECT_THAT(flipped(128 + 30), HasSubstr("padding at offset 158: expected zeros, found the byte 04"));
  EXPECT_THAT(flipped(192 + 33), HasSubstr("tensor 'b': chunk 0 at offset 192: expected the checksum"));
  EXPECT_THAT(flipped(directory + 1),
              HasSubstr(fmt::format("the directory at offset {} is damaged", directory)));
  EXPECT_THAT(flipped(whole.size() - 50),
              HasSubstr(fmt::format("the trailer at offset {} is damaged", whole.size() - 64)));
  EXPECT_THAT(flipped(whole.size() - 1), HasSubstr("the file is cut off or damaged"));
}

TEST(QkvFile, ReportsEveryDefect) {
  test::TemporaryDirectory dir;
  QkvWriter writer(dir / "x.qkv", {{"t", DType::f32, Shape{3072, 256}}}, Metadata());
  writer.write("t", Tensor::zeros(Shape{3072, 256}));
  writer.finish();
  std::string bytes = read_file(dir / "x.qkv");
  bytes[64] = 1;
  bytes[64 + (2 << 20) + 5] = 1;
  write_file(dir / "x.qkv", bytes);
  const QkvFile file(dir / "x.qkv");
  EXPECT_THAT(file.verify(),
              ElementsAre(HasSubstr("tensor 't': chunk 0 at offset 64: expected the checksum"),
                          HasSubstr("tensor 't': chunk 2 at offset 2097216: expected the checksum")));
}

TEST(QkvFile, RefusesEveryTruncation) {
  const std::string whole = small_qkv().give();
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_THAT(complaint(whole.substr(0, size)), StartsWith("[qkv] x: ")) << size;
  }
  EXPECT_THAT(complaint(whole + "x"), HasSubstr("the file is cut off or damaged"));
}

// Wrong, but with checksums that hold: what a faulty or hostile writer makes.
TEST(QkvFile, NamesWhatIsWrong) {
  const auto changed = [](auto&& change) {
    QkvParts parts = small_qkv();
    change(parts);
    return parts.give();
  };
  const auto with_tensor = [&](const std::string& record) {
    return changed([&](QkvParts& parts) { parts.tensors = {record}; });
  };
  const uint64_t huge = uint64_t{1} << 61;
  const std::string row(12, 'x');
  struct Case {
    const char* what;
    std::string bytes;
    std::string error;
  };
  const Case cases[] = {
      {"empty", "", "expected a .qkv file, found an empty file"},
      {"another kind", "GGUF", "expected a .qkv file, found a GGUF file"},
      {"the magic alone", "\x89QKV\r\n\x1a\n", "expected at least 128 bytes, found 8"},
      {"version 2", changed([](QkvParts& p) { p.version = 2; }), "version: expected 1, found 2"},
      {"features", changed([](QkvParts& p) { p.features = 8; }),
       "expected no features beyond those of version 1, found the bits 8"},
      {"alignment of 4", changed([](QkvParts& p) { p.alignment = 4; }),
       "alignment: expected a power of two from 8 to 1048576, found 4"},
      {"alignment of 96", changed([](QkvParts& p) { p.alignment = 96; }),
       "alignment: expected a power of two"},
      {"another size", changed([](QkvParts& p) { p.file_size = 5; }),
       "expected 5 bytes by the trailer, found"},
      {"directory elsewhere", changed([](QkvParts& p) { p.directory_offset = 64; }),
       "trailer: expected a directory that ends at offset"},
      {"directory far away", changed([](QkvParts& p) { p.directory_offset = int64_t{1} << 60; }),
       "trailer: expected a directory that ends at offset"},
      {"pairs beyond the file", changed([](QkvParts& p) { p.pair_count = int64_t{1} << 60; }),
       "number of key/value pairs: expected at most"},
      {"tensors beyond the file", changed([](QkvParts& p) { p.tensor_count = int64_t{1} << 60; }),
       "number of records: expected at most"},
      {"codec without a name", changed([](QkvParts& p) { p.codecs[0].first = ""; }),
       "codec 0: expected a name"},
      {"no codec", changed([](QkvParts& p) { p.codecs.clear(); }),
       "file 'config.json': chunk 0: expected one of 0 codecs, found number 0"},
      {"bytes behind the last record", changed([](QkvParts& p) { p.after = "abc"; }),
       "expected its end after the last tensor, found 3 bytes more"},
      {"a file that is a matrix", changed([](QkvParts& p) {
         p.files = {qkv_record("f", "u8", {1, 1}, 1, 1, 64, {{0, kConfig.substr(0, 1)}})};
       }),
       "file 'f': expected a plain file name and u8 (n), found u8 (1, 1)"},
      {"a file with a path", changed([](QkvParts& p) {
         p.files = {qkv_record("../f", "u8", {1}, 1, 1, 64, {{0, kConfig.substr(0, 1)}})};
       }),
       "file '../f': expected a plain file name"},
      {"tensor without a name", with_tensor(qkv_record("", "f32", {3}, 12, 12, 128, {{0, row}})),
       "tensor 0: expected a name, found an empty one"},
      {"repeated tensor", changed([](QkvParts& p) { p.tensors[1] = p.tensors[0]; }),
       "tensor 'a': expected once, found twice"},
      {"unknown type", with_tensor(qkv_record("a", "f33", {3}, 12, 12, 128, {{0, row}})),
       "tensor 'a': expected the name of a type, found 'f33'"},
      {"another name of a type", with_tensor(qkv_record("a", "float32", {3}, 12, 12, 128, {{0, row}})),
       "tensor 'a': expected the name of a type, found 'float32'"},
      {"five dimensions", with_tensor(qkv_record("a", "f32", {1, 1, 1, 1, 3}, 12, 12, 128, {{0, row}})),
       "tensor 'a': expected at most 4 dimensions, found 5"},
      {"a dimension of 2^62",
       with_tensor(qkv_record("a", "f32", {uint64_t{1} << 62}, 12, 12, 128, {{0, row}})),
       "tensor 'a': expected dimensions below 2^62, found 4611686018427387904"},
      {"too many elements", with_tensor(qkv_record("a", "f32", {huge, huge}, 12, 12, 128, {{0, row}})),
       "tensor 'a': shape: more than 2^62 elements"},
      {"a row that is no whole block", with_tensor(qkv_record("a", "q8_0", {31}, 34, 34, 128, {{0, row}})),
       "tensor 'a': q8_0 (31): expected a last dimension that is a multiple of 32"},
      {"short rows", with_tensor(qkv_record("a", "f32", {3}, 11, 12, 128, {{0, row}})),
       "tensor 'a': expected rows of 12 bytes or more"},
      {"rows of 2^61 bytes", with_tensor(qkv_record("a", "f32", {16, 3}, huge, 12, 128, {{0, row}})),
       "tensor 'a': expected rows of 12 bytes or more and of less than 2^64 together, found rows of "
       "2305843009213693952"},
      {"chunks of no bytes", with_tensor(qkv_record("a", "f32", {3}, 12, 0, 128, {{0, row}})),
       "tensor 'a': expected chunks of at least one byte, found 0"},
      {"more chunks than bytes", with_tensor(qkv_record("a", "f32", {1 << 20}, 4 << 20, 1, 128, {{0, row}})),
       "tensor 'a': expected at most 1 chunks, as 20 bytes follow; found 4194304"},
      {"unaligned offset", with_tensor(qkv_record("a", "f32", {3}, 12, 12, 132, {{0, row}})),
       "tensor 'a': offset: expected a multiple of 64 from 110 to 232, found 132"},
      {"overlap", with_tensor(qkv_record("a", "f32", {3}, 12, 12, 64, {{0, row}})),
       "tensor 'a': offset: expected a multiple of 64 from 110 to 232, found 64"},
      {"data in the directory", with_tensor(qkv_record("a", "f32", {3}, 12, 12, 256, {{0, row}})),
       "tensor 'a': offset: expected a multiple of 64 from 110 to 232, found 256"},
      {"data into the directory",
       with_tensor(qkv_record("a", "f32", {64}, 256, 256, 128, {{0, std::string(256, 'x')}})),
       "tensor 'a': chunk 0: expected its data before the directory at offset 232, found 256 bytes at offset "
       "128"},
      {"a raw chunk of another size", with_tensor(qkv_record("a", "f32", {3}, 12, 12, 128, {{0, row, 8}})),
       "tensor 'a': chunk 0: expected 12 bytes, found 8"},
      {"codec 1 of 1", with_tensor(qkv_record("a", "f32", {3}, 12, 12, 128, {{1, row}})),
       "tensor 'a': chunk 0: expected one of 1 codecs, found number 1"},
      {"a chunk of 2^63 bytes", with_tensor(qkv_record("a", "f32", {3}, 12, 12, 128, {{0, row, INT64_MAX}})),
       "tensor 'a': chunk 0: expected its data before the directory"},
  };
  for (const auto& item : cases) {
    EXPECT_THAT(complaint(item.bytes), StartsWith("[qkv] x: ")) << item.what;
    EXPECT_THAT(complaint(item.bytes), HasSubstr(item.error)) << item.what;
  }
}

TEST(QkvFile, ADamagedConfigurationIsNotUsed) {
  test::TemporaryDirectory dir;
  std::string bytes = small_qkv().give();
  bytes[70] = 'x';
  write_file(dir / "x.qkv", bytes);
  EXPECT_THAT(error_of([&] { QkvFile(dir / "x.qkv"); }),
              HasSubstr("x.qkv: file 'config.json': chunk 0 at offset 64: expected the checksum"));
  QkvWriter writer(dir / "y.qkv", {}, Metadata(), {{"config.json", "[1]"}});
  writer.finish();
  EXPECT_THAT(error_of([&] { QkvFile(dir / "y.qkv"); }),
              HasSubstr("file 'config.json': expected an object, found array"));
}

TEST(QkvFile, HoldsAWholeModel) {
  const std::string path = test::shared("fixtures/models/llama");
  if (!fs::exists(path)) GTEST_SKIP() << path << " is absent";
  const HfDirectory source(path);
  EXPECT_THAT(source.file_names(), ::testing::Contains("config.json"));
  EXPECT_THAT(source.file_names(), ::testing::Not(::testing::Contains("model.safetensors")));
  EXPECT_EQ(source.file("../llama/config.json"), std::nullopt);
  test::TemporaryDirectory dir;
  std::vector<std::pair<std::string, std::string>> files;
  for (const auto& name : source.file_names()) files.emplace_back(name, source.file(name).value());
  QkvWriter writer(dir / "m.qkv", source.entries(), source.metadata(), files);
  for (const auto& entry : writer.entries()) writer.write(entry.name, source.read(entry.name));
  writer.finish();
  const auto file = open_checkpoint(dir / "m.qkv");
  EXPECT_EQ(file->format_name(), "qkv");
  EXPECT_THAT(file->verify(), IsEmpty());
  EXPECT_EQ(*file->config(), *source.config());
  EXPECT_EQ(*file->generation_config(), *source.generation_config());
  EXPECT_EQ(file->metadata().values(), source.metadata().values());
  EXPECT_EQ(file->file_names(), source.file_names());
  for (const auto& entry : source.entries())
    EXPECT_EQ(bytes_of(file->read(entry.name)), bytes_of(source.read(entry.name)));
}

}  // namespace
}  // namespace qkv
