#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "qkv/core/error.h"
#include "qkv/core/rng.h"
#include "qkv/formats/gguf.h"
#include "tests/formats/gguf_bytes.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

namespace fs = std::filesystem;
using test::error_of;
using test::small_gguf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string bytes_of(const Tensor& tensor) {
  return std::string(reinterpret_cast<const char*>(tensor.raw()), tensor.bytes());
}

void expect_same(const Checkpoint& found, const Checkpoint& expected) {
  EXPECT_EQ(found.metadata().values(), expected.metadata().values());
  ASSERT_EQ(found.entries().size(), expected.entries().size());
  for (size_t i = 0; i < expected.entries().size(); ++i) {
    const TensorEntry& entry = expected.entries()[i];
    EXPECT_EQ(found.entries()[i].name, entry.name);
    EXPECT_EQ(found.entries()[i].type, entry.type);
    EXPECT_EQ(found.entries()[i].shape, entry.shape);
    EXPECT_EQ(bytes_of(found.read(entry.name)), bytes_of(expected.read(entry.name))) << entry.name;
  }
}

TEST(GgufWriter, WritesTheBytesOfTheSpecification) {
  test::TemporaryDirectory dir;
  const std::string whole = small_gguf().give();
  write_file(dir / "x.gguf", whole);
  const GgufFile source(dir / "x.gguf");
  const auto paths = write_gguf(dir / "y.gguf", source.entries(), source.metadata(),
                                [&](const TensorEntry& entry) { return source.read(entry.name); });
  EXPECT_EQ(paths, std::vector<std::string>{dir / "y.gguf"});
  EXPECT_EQ(read_file(dir / "y.gguf"), whole);
}

TEST(GgufWriter, RoundTripsEveryType) {
  test::TemporaryDirectory dir;
  std::vector<TensorEntry> entries;
  std::vector<Tensor> tensors;
  Rng rng(7);
  for (int i = 0; i < kDTypeCount; ++i) {
    const auto type = static_cast<DType>(i);
    if (traits(type).gguf < 0) continue;
    const Shape shape{2, 3, traits(type).block_length * 2};
    entries.push_back({std::string(name(type)), type, shape});
    tensors.push_back(Tensor::empty(shape, type));
    for (uint64_t b = 0; b < tensors.back().bytes(); ++b) {
      tensors.back().raw()[b] = static_cast<std::byte>(rng.next_u32());
    }
  }
  EXPECT_EQ(entries.size(), 32u);
  Metadata metadata;
  metadata.set("general.alignment", uint32_t{128});
  size_t next = 0;
  write_gguf(dir / "x.gguf", entries, metadata, [&](const TensorEntry&) { return tensors[next++]; });
  const GgufFile file(dir / "x.gguf");
  EXPECT_EQ(file.metadata().values(), metadata.values());
  ASSERT_EQ(file.entries().size(), entries.size());
  for (size_t i = 0; i < entries.size(); ++i) {
    EXPECT_EQ(file.entries()[i].name, entries[i].name);
    EXPECT_EQ(file.entries()[i].type, entries[i].type);
    EXPECT_EQ(file.entries()[i].shape, entries[i].shape);
    const Tensor found = file.read(entries[i].name);
    EXPECT_EQ(bytes_of(found), bytes_of(tensors[i]));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(found.raw()) % 128, 0u);
  }
}

TEST(GgufWriter, RefusesWhatTheFormatCannotHold) {
  test::TemporaryDirectory dir;
  const auto writing = [&](std::vector<TensorEntry> entries, const Metadata& metadata = Metadata()) {
    const std::string found = error_of([&] { GgufWriter(dir / "x.gguf", std::move(entries), metadata); });
    EXPECT_TRUE(fs::is_empty(dir.path())) << "nothing is left behind";
    return found;
  };
  EXPECT_THAT(writing({{"a", DType::u8, Shape{1}}}),
              HasSubstr("tensor 'a': expected one of the format's types, f64,"));
  EXPECT_THAT(writing({{std::string(64, 'n'), DType::f32, Shape{1}}}),
              HasSubstr("expected a name of 1 to 63 bytes, found 64"));
  EXPECT_THAT(writing({{"a", DType::f32, Shape{1}}, {"a", DType::f32, Shape{1}}}),
              HasSubstr("tensor 'a': expected once, found twice"));
  EXPECT_THAT(writing({{"a", DType::q4_k, Shape{2, 192}}}),
              HasSubstr("tensor 'a': q4_k (2, 192): expected a last dimension that is a multiple of 256"));
  Metadata metadata;
  metadata.set("general.alignment", uint32_t{1} << 30);
  EXPECT_THAT(writing({}, metadata), HasSubstr("key 'general.alignment': expected at most 1048576"));
  metadata.set("general.alignment", uint64_t{32});
  EXPECT_THAT(writing({}, metadata), HasSubstr("key 'general.alignment': expected a u32, found u64"));
  Metadata nameless;
  nameless.set("", true);
  EXPECT_THAT(writing({}, nameless), HasSubstr("expected a key with a name"));

  GgufWriter writer(dir / "x.gguf", {{"a", DType::f32, Shape{2}}}, Metadata());
  EXPECT_THAT(error_of([&] { writer.write("a", Tensor::zeros(Shape{3})); }),
              HasSubstr("tensor 'a': expected f32 (2), found f32 (3)"));
  EXPECT_THAT(error_of([&] { writer.finish(); }),
              HasSubstr("tensor 'a': expected before the file is finished"));
  EXPECT_FALSE(fs::exists(dir / "x.gguf"));
}

class GgufSplit : public ::testing::Test {
 protected:
  // Tensors of 64 bytes, two to a file.
  std::vector<std::string> write(const std::string& path) {
    metadata_.set("general.architecture", "llama");
    metadata_.set("general.alignment", uint32_t{64});
    for (int i = 0; i < 5; ++i) entries_.push_back({fmt::format("t{}", i), DType::f32, Shape{16}});
    return write_gguf(
        path, entries_, metadata_,
        [](const TensorEntry& entry) {
          return Tensor::full(Shape{16}, static_cast<float>(entry.name[1] - '0'));
        },
        128);
  }
  std::string open_any(const std::string& name) {
    return error_of([&] { GgufFile(dir_ / name); });
  }

  test::TemporaryDirectory dir_;
  std::vector<TensorEntry> entries_;
  Metadata metadata_;
};

TEST_F(GgufSplit, AnyFileOpensAll) {
  const auto paths = write(dir_ / "x.gguf");
  ASSERT_EQ(paths.size(), 3u);
  EXPECT_EQ(paths[1], dir_ / "x-00002-of-00003.gguf");
  for (const auto& path : paths) {
    const GgufFile file(path);
    EXPECT_EQ(file.file_count(), 3u);
    EXPECT_EQ(file.metadata().values(), metadata_.values())
        << "of the first file, without the keys of the split";
    ASSERT_EQ(file.entries().size(), 5u);
    EXPECT_EQ(file.entries()[4].file, "x-00003-of-00003.gguf");
    for (int i = 0; i < 5; ++i) {
      EXPECT_EQ(file.read(fmt::format("t{}", i)).to_floats(), std::vector<float>(16, static_cast<float>(i)));
    }
  }
  const GgufHeader second = parse_gguf_header(MappedFile::open(paths[1])->bytes(), paths[1]);
  EXPECT_EQ(*second.metadata.find_exactly<uint16_t>("split.no"), 1) << "the types that llama.cpp reads";
  EXPECT_EQ(*second.metadata.find_exactly<uint16_t>("split.count"), 3);
  EXPECT_EQ(*second.metadata.find_exactly<int32_t>("split.tensors.count"), 5);
}

TEST_F(GgufSplit, NamesWhatIsMissingOrMixedUp) {
  const auto paths = write(dir_ / "x.gguf");
  const std::string second = read_file(paths[1]);
  fs::remove(paths[1]);
  EXPECT_THAT(open_any("x-00003-of-00003.gguf"),
              HasSubstr("expected its file 2 of 3, 'x-00002-of-00003.gguf', beside it, found none"));
  fs::copy_file(paths[2], paths[1]);
  EXPECT_THAT(
      open_any("x-00001-of-00003.gguf"),
      HasSubstr("x-00002-of-00003.gguf: expected split.no 1 and split.count 3 by its name, found 2 and 3"));

  const auto remade = [&](std::string_view name, int32_t total) {
    Metadata metadata;
    metadata.set("split.no", uint16_t{1});
    metadata.set("split.count", uint16_t{3});
    metadata.set("split.tensors.count", total);
    GgufWriter writer(paths[1], {{std::string(name), DType::f32, Shape{1}}}, metadata);
    writer.write(name, Tensor::zeros(Shape{1}));
    writer.finish();
  };
  remade("t0", 4);
  EXPECT_THAT(open_any("x-00001-of-00003.gguf"),
              HasSubstr("tensor 't0': expected in one file, found in "
                        "'x-00001-of-00003.gguf' and 'x-00002-of-00003.gguf'"));
  remade("new", 4);
  EXPECT_THAT(open_any("x-00001-of-00003.gguf"),
              HasSubstr("expected 5 tensors in 3 files by split.tensors.count, found 4"));
  write_file(paths[1], second);
  EXPECT_EQ(open_any("x-00001-of-00003.gguf"), "(no error)");
  write_file(paths[1], "GGUF");
  EXPECT_THAT(open_any("x-00001-of-00003.gguf"), StartsWith(fmt::format("[gguf] {}: version", paths[1])));
}

TEST(GgufRealFiles, AreRewrittenByteByByte) {
  std::vector<std::string> paths;
  for (const char* folder : {"data/models", "data/vocab", "data/reference/gguf_arch"}) {
    std::error_code code;
    for (const auto& item : fs::directory_iterator(test::shared(folder), code)) {
      if (item.path().extension() == ".gguf") paths.push_back(item.path().string());
    }
  }
  if (paths.empty()) GTEST_SKIP() << test::shared("data") << " has no .gguf files";
  test::TemporaryDirectory dir;
  for (const auto& path : paths) {
    SCOPED_TRACE(path);
    const GgufFile source(path);
    EXPECT_TRUE(source.metadata().has("general.architecture"));
    write_gguf(dir / "x.gguf", source.entries(), source.metadata(),
               [&](const TensorEntry& entry) { return source.read(entry.name); });
    EXPECT_TRUE(read_file(dir / "x.gguf") == read_file(path));
    const uint64_t limit = source.total_bytes() / 3 + 1;
    const auto parts = write_gguf(
        dir / "s.gguf", source.entries(), source.metadata(),
        [&](const TensorEntry& entry) { return source.read(entry.name); }, limit);
    expect_same(GgufFile(parts.back()), source);
    for (const auto& part : parts) fs::remove(part);
  }
}

}  // namespace
}  // namespace qkv
