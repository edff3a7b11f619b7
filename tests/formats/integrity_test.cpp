#include "qkv/formats/integrity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "qkv/core/atomic_file.h"
#include "qkv/core/error.h"
#include "qkv/core/rng.h"
#include "qkv/formats/gguf.h"
#include "qkv/formats/qkv_file.h"
#include "tests/formats/gguf_bytes.h"
#include "tests/formats/qkv_bytes.h"
#include "tests/formats/safetensors_bytes.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

namespace fs = std::filesystem;
using test::Bytes;
using test::error_of;
using test::gguf_pair;
using test::gguf_tensor;
using test::GgufParts;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr uint32_t kQ3K = 11, kF32 = 0;  // GGUF's type ids
constexpr uint64_t kBlocks = 1382, kBlockBytes = 110;

std::string noise(size_t bytes, uint64_t seed) {
  Rng rng(seed);
  std::string text(bytes, '\0');
  for (char& byte : text) byte = static_cast<char>(rng.next_u32());
  return text;
}

// Q3_K blocks whose scale is a finite number.
std::string blocks_of_q3_k(uint64_t count) {
  std::string bytes = noise(count * kBlockBytes, 1);
  for (uint64_t b = 0; b < count; ++b)
    bytes.replace((b + 1) * kBlockBytes - 2, 2, std::string("\x01\x2c", 2));
  return bytes;
}

std::string floats(int count) {
  Bytes bytes;
  for (int i = 0; i < count; ++i) bytes.f32(static_cast<float>(i));
  return bytes.str();
}

GgufParts with_alignment(uint32_t alignment) {
  GgufParts parts;
  parts.alignment = alignment;
  if (alignment != 32) parts.pairs = {gguf_pair("general.alignment", 4, Bytes().u32(alignment))};
  return parts;
}

// A tensor of 1382 Q3_K blocks, which is 152020 bytes, `gap` bytes, and another tensor.
GgufParts example(uint32_t alignment, const std::string& gap) {
  GgufParts parts = with_alignment(alignment);
  parts.tensors = {gguf_tensor("down", {256, kBlocks}, kQ3K, 0),
                   gguf_tensor("norm", {8}, kF32, kBlocks * kBlockBytes + gap.size())};
  parts.data = blocks_of_q3_k(kBlocks) + gap + floats(8);
  parts.data.resize((parts.data.size() + alignment - 1) / alignment * alignment);
  return parts;
}

struct Checked {
  test::TemporaryDirectory dir;
  std::string path;
  IntegrityReport report;
  explicit Checked(const std::string& bytes, const char* name = "x.gguf") : path(dir / name) {
    std::ofstream(path, std::ios::binary) << bytes;  // not synced: there are many
    report = check_integrity(path);
  }
  std::string first() const { return report.ok() ? "" : report.findings[0].sentence; }
};

// The bytes between the two tensors of the example in a file.
uint64_t gap_of(const std::string& path) {
  const IntegrityReport report = check_integrity(path);
  EXPECT_THAT(report.findings, IsEmpty());
  return report.tensors.at(0).gap;
}

TEST(Integrity, FortyFourBytesArePaddingTo64AndTo128) {
  ASSERT_EQ(kBlocks * kBlockBytes, 152020u);
  for (const uint32_t alignment : {64, 128}) {
    const Checked checked(example(alignment, std::string(44, '\0')).give());
    EXPECT_EQ(checked.first(), "");
    EXPECT_EQ(checked.report.alignment, alignment);
    const TensorPlace& place = checked.report.tensors.at(0);
    EXPECT_EQ(place.blocks, 1382u);
    EXPECT_EQ(place.block_bytes, 110u);
    EXPECT_EQ(place.bytes + place.gap, 152064u);
    EXPECT_EQ(place.gap, 44u);
    EXPECT_EQ(place.padding, 44u);
  }
}

TEST(Integrity, UnderAlignment32TwelveBytesAreEnough) {
  const Checked checked(example(32, std::string(44, '\0')).give());
  ASSERT_EQ(checked.report.findings.size(), 1u);
  EXPECT_EQ(checked.first(),
            "tensor 'down': expected 12 bytes of padding (to a multiple of 32) behind it, found 44");
  EXPECT_TRUE(checked.report.repairable());
  repair_layout(checked.path, checked.dir / "y.gguf");
  EXPECT_EQ(gap_of(checked.dir / "y.gguf"), 12u);
  const GgufFile before(checked.path), after(checked.dir / "y.gguf");
  EXPECT_EQ(before.read("down").to(DType::f32).to_floats(), after.read("down").to(DType::f32).to_floats());
  EXPECT_EQ(before.read("norm").to_floats(), after.read("norm").to_floats());
  EXPECT_EQ(before.metadata().values(), after.metadata().values());
}

TEST(Integrity, ThePaddingIsNoneIfTheShapeNeedsTheBytes) {
  // One block more: its 110 bytes would begin in the 44, and run into the next tensor.
  GgufParts parts = example(64, std::string(44, '\0'));
  parts.tensors[0] = gguf_tensor("down", {256, kBlocks + 1}, kQ3K, 0);
  parts.data += std::string(64, '\0');  // the block itself does not pass the file's end
  const Checked checked(parts.give());
  EXPECT_EQ(checked.first(),
            "tensor 'norm': expected bytes of its own from offset 152322 on, found it at offset 152256, on "
            "those of "
            "tensor 'down'");
  EXPECT_FALSE(checked.report.repairable());
  EXPECT_THAT(error_of([&] { repair_layout(checked.path, checked.dir / "y.gguf"); }),
              HasSubstr("not laid out again, since a weight could be lost: tensor 'norm'"));
  EXPECT_FALSE(fs::exists(checked.dir / "y.gguf"));
}

TEST(Integrity, BytesThatPaddingCannotBeAreKept) {
  const Checked checked(example(32, std::string(20, '\0') + "weights?" + std::string(16, '\0')).give());
  EXPECT_EQ(checked.first(),
            "tensor 'down': expected 12 bytes of padding (to a multiple of 32) behind it, found 44 "
            "that are not all zero and belong to no tensor");
  EXPECT_THAT(error_of([&] { repair_layout(checked.path, checked.dir / "y.gguf"); }),
              HasSubstr("belong to no tensor"));
  // Within what the alignment asks for they are padding, whatever a writer left there.
  const Checked padding(example(64, std::string(40, '\0') + "junk").give());
  EXPECT_EQ(padding.first(),
            "tensor 'down': expected zeros in the 44 bytes of padding behind it, found others");
  repair_layout(padding.path, padding.dir / "y.gguf");
  EXPECT_EQ(gap_of(padding.dir / "y.gguf"), 44u);
}

TEST(Integrity, OffsetsBesideTheAlignmentAreMended) {
  GgufParts parts = with_alignment(32);
  parts.tensors = {gguf_tensor("a", {3}, kF32, 0), gguf_tensor("b", {4}, kF32, 12)};
  parts.data = floats(7) + std::string(4, '\0');
  const Checked checked(parts.give());
  EXPECT_EQ(checked.first(), "tensor 'b': expected an offset that is a multiple of 32, found 12");
  EXPECT_THAT(error_of([&] { GgufFile file(checked.path); }), HasSubstr("offset: expected a multiple of 32"));
  ASSERT_TRUE(checked.report.repairable());
  repair_layout(checked.path, checked.dir / "y.gguf");
  const GgufFile file(checked.dir / "y.gguf");
  EXPECT_EQ(file.read("a").to_floats(), (std::vector<float>{0, 1, 2}));
  EXPECT_EQ(file.read("b").to_floats(), (std::vector<float>{3, 4, 5, 6}));
}

TEST(Integrity, NamesCutsAndWhatFollowsTheLastTensor) {
  const std::string whole = example(64, std::string(44, '\0')).give();
  const auto finding = [](const std::string& bytes) { return Checked(bytes).first(); };
  EXPECT_THAT(finding(whole.substr(0, whole.size() - 64)),
              HasSubstr("tensor 'norm': expected 8 blocks of 4 bytes, 32 bytes (f32) at offset"));
  EXPECT_THAT(finding(whole.substr(0, 10000)), HasSubstr("it is cut off"));
  EXPECT_EQ(finding(whole.substr(0, whole.size() - 32)),
            "tensor 'norm': expected 32 bytes of padding to a multiple of 64 behind it, found 0 at the end "
            "of the file");
  EXPECT_EQ(finding(whole + std::string(64, '\0')),
            "tensor 'norm': expected 32 bytes of padding (to a multiple of 64) behind it, found 96");
  EXPECT_THAT(finding(whole + "more weights"), HasSubstr("belong to no tensor"));
  EXPECT_THAT(finding("GGUF"), HasSubstr("[gguf] "));
  EXPECT_THAT(finding("something else"), HasSubstr("x.gguf"));
  EXPECT_THAT(check_integrity("no/such/file").findings.at(0).sentence, HasSubstr("no/such/file"));
}

TEST(Integrity, EveryTruncationOfAGgufIsFound) {
  const std::string whole = test::small_gguf().give();
  ASSERT_EQ(Checked(whole).first(), "");
  for (size_t size = 0; size < whole.size(); ++size)
    EXPECT_NE(Checked(whole.substr(0, size)).first(), "") << size;
}

TEST(Integrity, QkvFilesByTheirChecksums) {
  test::QkvParts parts;
  parts.data = "12345678" + std::string(56, '\0') + "abc";
  parts.tensors = {test::qkv_record("a", "u8", {8}, 8, 8, 64, {{0, "12345678"}}),
                   test::qkv_record("b", "u8", {3}, 3, 3, 128, {{0, "abc"}})};
  const std::string whole = parts.give();
  EXPECT_EQ(Checked(whole, "x.qkv").first(), "");
  std::string damaged = whole;
  damaged[66] = 'x';
  EXPECT_THAT(Checked(damaged, "x.qkv").first(),
              HasSubstr("tensor 'a': chunk 0 at offset 64: expected the checksum"));
  EXPECT_FALSE(Checked(damaged, "x.qkv").report.repairable());
  damaged = whole;
  damaged[100] = 'x';
  const Checked padding(damaged, "x.qkv");
  EXPECT_THAT(padding.first(), HasSubstr("padding at offset 100: expected zeros, found the byte 78"));
  repair_layout(padding.path, padding.dir / "y.qkv");
  EXPECT_EQ(read_file(padding.dir / "y.qkv"), whole);
}

TEST(Integrity, SafetensorsAreAlignedForTheirTypes) {
  const std::string header =
      R"({"bytes":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"numbers":{"dtype":"F32","shape":[2],"data_offsets":[3,11]}})";
  std::string padded = header + std::string((8 - header.size() % 8) % 8, ' ');
  const std::string whole = Bytes().u64(padded.size()).raw(padded).raw("abc").f32(1.5f).f32(-2).str();
  const Checked checked(whole, "x.safetensors");
  EXPECT_THAT(checked.first(),
              HasSubstr("tensor 'numbers': expected an offset that is a multiple of its elements' 4 "
                        "bytes, found"));
  repair_layout(checked.path, checked.dir / "y.safetensors");
  EXPECT_THAT(check_integrity(checked.dir / "y.safetensors").findings, IsEmpty());
  EXPECT_EQ(open_checkpoint(checked.dir / "y.safetensors")->read("numbers").to_floats(),
            (std::vector<float>{1.5f, -2}));
}

TEST(Integrity, RepairsNothingInPlace) {
  const Checked checked(example(64, std::string(44, '\0')).give());
  EXPECT_THAT(error_of([&] { repair_layout(checked.path, checked.path); }),
              HasSubstr("another place than the source's"));
  repair_layout(checked.path, checked.dir / "y.gguf");  // a file without findings is laid out as it was
  EXPECT_TRUE(read_file(checked.dir / "y.gguf") == read_file(checked.path));
}

TEST(Integrity, RealFilesAreInOrder) {
  for (const char* name : {"stories3M-F16", "stories3M-Q4_K_M", "stories3M-Q6_K", "stories3M-IQ4_NL"}) {
    const std::string path = test::shared(fmt::format("data/models/{}.gguf", name));
    if (!fs::exists(path)) GTEST_SKIP() << path << " is absent";
    EXPECT_THAT(check_integrity(path).findings, IsEmpty()) << path;
  }
}

}  // namespace
}  // namespace qkv
