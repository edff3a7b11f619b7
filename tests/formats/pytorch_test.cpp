#include "qkv/formats/pytorch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "qkv/core/atomic_file.h"
#include "qkv/core/error.h"
#include "qkv/formats/zip.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

using test::error_of;
using test::golden;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string bytes_of(const Tensor& tensor) {
  return std::string(reinterpret_cast<const char*>(tensor.raw()), tensor.bytes());
}
template <typename T>
std::vector<T> values(const Tensor& tensor) {
  std::vector<T> result(static_cast<size_t>(tensor.elements()));
  EXPECT_EQ(tensor.bytes(), result.size() * sizeof(T));
  std::memcpy(result.data(), tensor.raw(), tensor.bytes());
  return result;
}
using Floats = std::vector<float>;

// Files of PyTorch 1.13; tests/golden/formats/make_pytorch.py says what is in them.
class GoldenStateDict : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenStateDict, HasTheTensorsThatTorchSaved) {
  const PytorchFile file(golden(std::string("formats/") + GetParam() + ".pt"));
  EXPECT_EQ(file.format_name(), "pytorch");
  EXPECT_EQ(file.entries().size(), 19u);
  EXPECT_EQ(file.find("matrix")->file, std::string(GetParam()) + ".pt");
  EXPECT_EQ(file.read("matrix").shape(), (Shape{2, 3}));
  EXPECT_EQ(file.read("matrix").to_floats(), (Floats{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(file.read("transposed").shape(), (Shape{3, 2}));
  EXPECT_EQ(file.read("transposed").to_floats(), (Floats{0, 3, 1, 4, 2, 5}));
  EXPECT_EQ(file.read("rows").to_floats(), (Floats{4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}));
  EXPECT_EQ(file.read("every_other").to_floats(), (Floats{1, 3, 9, 11, 17, 19}));
  EXPECT_EQ(file.read("expanded").to_floats(), (Floats{1.5, 1.5, 1.5, 1.5}));
  EXPECT_EQ(file.read("tied.a").to_floats(), (Floats{0, .25, .5, .75}));
  EXPECT_EQ(file.read("tied.b").to_floats(), (Floats{0, .25, .5, .75}));
  EXPECT_EQ(values<double>(file.read("scalar")), std::vector<double>{7.25});
  EXPECT_EQ(file.read("scalar").shape(), Shape{});
  EXPECT_EQ(file.read("empty").shape(), (Shape{0, 3}));
  const auto four = values<int32_t>(file.read("four"));
  for (int d = 0; d < 2; ++d)
    for (int b = 0; b < 2; ++b)
      for (int a = 0; a < 2; ++a)
        for (int c = 0; c < 2; ++c)
          EXPECT_EQ(four[static_cast<size_t>(((d * 2 + b) * 2 + a) * 2 + c)], ((a * 2 + b) * 2 + c) * 2 + d);
  EXPECT_EQ(values<double>(file.read("type.f64")), (std::vector<double>{1, 2, 100}));
  EXPECT_EQ(file.read("type.f16").to_floats(), (Floats{1, 2, 100}));
  EXPECT_EQ(file.read("type.bf16").to_floats(), (Floats{1, 2, 100}));
  EXPECT_EQ(values<int64_t>(file.read("type.i64")), (std::vector<int64_t>{1, 2, 100}));
  EXPECT_EQ(values<int32_t>(file.read("type.i32")), (std::vector<int32_t>{1, 2, 100}));
  EXPECT_EQ(values<int16_t>(file.read("type.i16")), (std::vector<int16_t>{1, 2, 100}));
  EXPECT_EQ(values<int8_t>(file.read("type.i8")), (std::vector<int8_t>{1, 2, 100}));
  EXPECT_EQ(values<uint8_t>(file.read("type.u8")), (std::vector<uint8_t>{1, 2, 100}));
  EXPECT_EQ(file.read("type.bool").dtype(), DType::boolean);
  EXPECT_EQ(bytes_of(file.read("type.bool")), std::string("\1\0\1", 3));
  for (const auto& entry : file.entries()) file.release(entry.name);
  EXPECT_EQ(file.read("matrix").to_floats()[5], 5) << "released pages are read again";
  EXPECT_EQ(file.has_checksums(), GetParam() != std::string("legacy"));
  EXPECT_THAT(file.verify(), ::testing::IsEmpty());
}

INSTANTIATE_TEST_SUITE_P(Layouts, GoldenStateDict, ::testing::Values("zip", "legacy", "deflated"),
                         [](const auto& info) { return std::string(info.param); });

TEST(PytorchFile, BorrowsWhatIsStoredContiguously) {
  Tensor kept;
  {
    const PytorchFile file(golden("formats/zip.pt"));
    EXPECT_EQ(file.read("matrix").raw(), file.read("matrix").raw());
    EXPECT_EQ(file.read("tied.a").raw(), file.read("tied.b").raw());
    EXPECT_NE(file.read("transposed").raw(), file.read("matrix").raw());
    kept = file.read("rows");
  }
  EXPECT_EQ(kept.to_floats()[0], 4) << "a tensor keeps the mapping alive";
}

TEST(PytorchFile, FindsTheModelInATrainingCheckpoint) {
  const PytorchFile file(golden("formats/training.pt"));
  std::vector<std::string> names;
  for (const auto& entry : file.entries()) names.push_back(entry.name);
  EXPECT_THAT(names, ::testing::UnorderedElementsAre("0.weight", "0.bias", "1.weight", "1.bias"));
  EXPECT_EQ(file.read("0.weight").to_floats(), (Floats{0, 1, 2, 3}));
  EXPECT_EQ(file.read("1.bias").to_floats(), (Floats{30, 31}));
  const Metadata& metadata = file.metadata();
  EXPECT_EQ(metadata.string("pytorch.prefix"), "_orig_mod.");
  EXPECT_EQ(metadata.integer("pytorch.other_tensors"), 12)
      << "step, exp_avg and exp_avg_sq of four parameters";
  EXPECT_EQ(metadata.integer("iter_num"), 12);
  EXPECT_EQ(metadata.string("name"), "tales");
  EXPECT_EQ(metadata.number("best_val_loss"), 1.75) << "a scalar of numpy";
  EXPECT_EQ(metadata.integer("config.layers"), 2);
  EXPECT_EQ(metadata.number("config.dropout"), 0.5);
  EXPECT_FALSE(metadata.boolean("config.bias"));
  EXPECT_EQ(metadata.numbers("config.betas"), (std::vector<double>{0.9, 0.95}));
  EXPECT_EQ(metadata.string("config.dtype"), "torch.bfloat16");
  EXPECT_EQ(metadata.number("optimizer.param_groups.0.lr"), 0.125);
  EXPECT_EQ(metadata.integers("optimizer.param_groups.0.params"), (std::vector<int64_t>{0, 1, 2, 3}));
}

TEST(PytorchFile, NamesListItemsByPosition) {
  const PytorchFile file(golden("formats/protocol5.pt"));
  EXPECT_EQ(file.read("0").to_floats(), (Floats{1, 1}));
  EXPECT_EQ(file.read("1.x").to_floats(), (Floats{0}));
}

TEST(PytorchFile, RefusesWholeModules) {
  EXPECT_THAT(
      error_of([] { PytorchFile file(golden("formats/module.pt")); }),
      HasSubstr(
          "module/data.pkl: byte 2: the class or function 'torch.nn.modules.linear.Linear' is refused"));
}

TEST(PytorchFile, TakesTheConfigBesideIt) {
  test::TemporaryDirectory dir;
  std::filesystem::copy_file(golden("formats/zip.pt"), dir / "weights");
  EXPECT_EQ(open_checkpoint(dir / "weights")->format_name(), "pytorch");
  write_file(dir / "config.json", R"({"model_type":"gpt2"})");
  EXPECT_EQ(open_checkpoint(dir / "weights")->config()->at("model_type"), "gpt2");
}

TEST(PytorchFile, NoticesAFlippedBit) {
  test::TemporaryDirectory dir;
  std::string bytes = read_file(golden("formats/zip.pt"));
  const auto records = read_zip_directory(std::as_bytes(std::span(bytes)), "x");
  for (const auto& record : records) {
    if (record.bytes == 0 || !record.name.starts_with("zip/data/")) continue;
    std::string flipped = bytes;
    flipped[record.begin] = static_cast<char>(flipped[record.begin] ^ 4);
    write_file(dir / "x.pt", flipped);
    const PytorchFile file(dir / "x.pt");
    EXPECT_THAT(file.verify(),
                ::testing::ElementsAre(HasSubstr(fmt::format(
                    "record '{}': expected the checksum {:08x}, found", record.name, record.crc32))));
  }
}

// Archives and pickles by hand.

struct Part {
  std::string name;
  std::string data;
};

std::string archive(const test::TemporaryDirectory& dir, const std::vector<Part>& parts) {
  ZipWriter writer(dir / "made.pt");
  for (const auto& part : parts) writer.add(part.name, part.data, 64);
  writer.finish();
  return read_file(dir / "made.pt");
}

std::string opening(const test::TemporaryDirectory& dir, std::string_view bytes) {
  write_file(dir / "x.pt", bytes);
  return error_of([&] {
    const PytorchFile file(dir / "x.pt");
    for (const auto& entry : file.entries()) bytes_of(file.read(entry.name));
  });
}

// The pickle (protocol 0) of {"w": tensor}, of a FloatStorage "0".
std::string one_tensor(std::string_view elements, std::string_view offset, std::string_view size,
                       std::string_view stride, std::string_view type = "FloatStorage") {
  return fmt::format(
      "(Vw\nctorch._utils\n_rebuild_tensor_v2\n((Vstorage\nctorch\n{}\nV0\nVcpu\nI{}\ntQI{}\n({}t({}"
      "tI00\nNtRd.",
      type, elements, offset, size, stride);
}

TEST(PytorchFile, SaysWhatIsWrongWithATensor) {
  test::TemporaryDirectory dir;
  const auto with = [&](const std::string& pickle) {
    return opening(dir, archive(dir, {{"a/data.pkl", pickle}, {"a/data/0", std::string(16, 'x')}}));
  };
  const std::string here = "[pytorch] " + dir / "x.pt" + ": ";
  EXPECT_EQ(with(one_tensor("4", "0", "I2\nI2\n", "I2\nI1\n")), "(no error)");
  EXPECT_EQ(with(one_tensor("4", "3", "I5\n", "I0\n")), "(no error)") << "expanded from the last element";
  EXPECT_EQ(with(one_tensor("4", "9", "I0\nI5\n", "I9\nI9\n")), "(no error)") << "nothing is anywhere";
  EXPECT_EQ(with(one_tensor("4", "1", "I2\nI2\n", "I2\nI1\n")),
            here +
                "tensor 'w': expected (2, 2) elements from 1 on within its storage of 4 elements, found them "
                "running past its end");
  EXPECT_THAT(with(one_tensor("4", "0", "I2\n", "I9223372036854775807\n")),
              HasSubstr("running past its end"));
  EXPECT_THAT(with(one_tensor("4", "9223372036854775807", "I1\n", "I1\n")),
              HasSubstr("running past its end"));
  EXPECT_EQ(with(one_tensor("4", "0", "I4611686018427387904\n", "I0\n")),
            here + "tensor 'w': shape: more than 2^62 elements");
  EXPECT_EQ(
      with(one_tensor("4", "0", "I20000000\n", "I0\n")),
      here + "tensor 'w': expected at most 16777216 elements expanded from a storage of 4, found 20000000");
  EXPECT_EQ(with(one_tensor("4", "0", "I1\nI1\nI1\nI1\nI1\n", "I1\nI1\nI1\nI1\nI1\n")),
            here + "tensor 'w': shape: expected at most 4 dimensions, found 5");
  EXPECT_EQ(with(one_tensor("4", "0", "I-2\n", "I1\n")),
            here + "tensor 'w': shape: expected an integer from 0 up, found the integer -2");
  EXPECT_EQ(with(one_tensor("4", "0", "I2\n", "I-1\n")),
            here + "tensor 'w': strides: expected an integer from 0 up, found the integer -1");
  EXPECT_EQ(with(one_tensor("4", "0", "I2\nI2\n", "I1\n")),
            here + "tensor 'w': strides: expected 2, found 1");
  EXPECT_EQ(with(one_tensor("4", "-1", "I1\n", "I1\n")),
            here + "tensor 'w': offset: expected an integer from 0 up, found the integer -1");
  EXPECT_EQ(with(one_tensor("5", "0", "I1\n", "I1\n")),
            here + "record 'a/data/0': expected 5 elements of 4 bytes, found 16 bytes");
  EXPECT_EQ(with("(Vw\nctorch._utils\n_rebuild_tensor_v2\n(NI0\n))I00\nNtRd."),
            here + "tensor 'w': expected a storage, found None");
  EXPECT_EQ(opening(dir, archive(dir, {{"a/data.pkl", one_tensor("4", "0", "I4\n", "I1\n")}})),
            here + "tensor 'w': expected storage '0' in the file, found none");
  const std::string tensor = one_tensor("4", "0", "I4\n", "I1\n");
  const std::string inner = tensor.substr(4, tensor.size() - 6);  // without (Vw\n and d.
  EXPECT_EQ(with("(Vw\n" + inner + "Vw\n" + inner + "d."), here + "tensor 'w': expected once, found twice");
  EXPECT_EQ(with("((I1\nI2\nt" + inner + "d."),
            here + "a tensor: expected under a key that is a text or an integer, found another");
  EXPECT_THAT(with("(lp0\ng0\na."), HasSubstr("found more (does it contain itself?)"));
  std::string wide = "(lp0\n0";  // 2^40 empty lists
  for (int i = 1; i <= 40; ++i) wide += fmt::format("(g{}\ng{}\nlp{}\n0", i - 1, i - 1, i);
  EXPECT_THAT(with(wide + "g40\n."), HasSubstr("found more (does it contain itself?)"));
}

TEST(PytorchFile, ReadsTypesWithoutAStorageClass) {
  test::TemporaryDirectory dir;
  const auto typed = [](std::string_view type, int bytes) {
    return fmt::format(
        "(Vw\nctorch._utils\n_rebuild_tensor_v3\n((Vstorage\nctorch.storage\nUntypedStorage\nV0\nVcpu\nI{}"
        "\ntQI0\n"
        "(I2\nt(I1\ntI00\nNctorch\n{}\ntRd.",
        bytes, type);
  };
  write_file(dir / "x.pt",
             archive(dir, {{"a/data.pkl", typed("float8_e4m3fn", 2)}, {"a/data/0", "\x38\xc0"}}));
  const Tensor w = PytorchFile(dir / "x.pt").read("w");
  EXPECT_EQ(w.dtype(), DType::f8_e4m3);
  EXPECT_EQ(bytes_of(w), "\x38\xc0");
  write_file(dir / "x.pt",
             archive(dir, {{"a/data.pkl", typed("uint32", 8)}, {"a/data/0", "\1\0\0\0\2\0\0\0"}}));
  EXPECT_THAT(opening(dir, archive(dir, {{"a/data.pkl", typed("uint64", 8)}, {"a/data/0", "12345678"}})),
              HasSubstr("tensor 'w': expected (2) elements from 0 on within its storage of 1 elements"));
}

TEST(PytorchFile, SaysWhatIsWrongWithAnArchive) {
  test::TemporaryDirectory dir;
  const std::string here = "[pytorch] " + dir / "x.pt" + ": ";
  EXPECT_EQ(opening(dir, archive(dir, {{"weights.npy", "x"}})),
            here + "expected a record data.pkl in the ZIP archive, found 1 other records");
  EXPECT_EQ(opening(dir, archive(dir, {{"a/data.pkl", "N."}, {"a/constants.pkl", "N."}})),
            here + "expected a file of torch.save, found a TorchScript program");
  EXPECT_EQ(opening(dir, archive(dir, {{"a/data.pkl", "N."}, {"a/byteorder", "big"}})),
            here + "expected little-endian numbers, found a file of a big-endian machine");
  EXPECT_EQ(opening(dir, archive(dir, {{"a/data.pkl", "N."}, {"a/data.pkl", "N."}})),
            here + "record 'a/data.pkl': expected once, found twice");
  EXPECT_EQ(
      opening(dir, archive(dir, {{"a/data.pkl", "cos\nsystem\n(Vx\ntR."}})),
      here +
          "a/data.pkl: byte 0: the class or function 'os.system' is refused: only tensors, numbers, texts "
          "and containers are read");
  const std::string whole = read_file(golden("formats/zip.pt"));
  EXPECT_EQ(opening(dir, whole.substr(0, whole.size() - 1)),
            here + "expected the directory of a ZIP archive at the end, found none (is the file cut off?)");
  const size_t directory = whole.find("PK\x01\x02");
  const auto changed = [&](size_t offset, std::string_view bytes) {
    std::string copy = whole;
    copy.replace(directory + offset, bytes.size(), bytes);
    return opening(dir, copy);
  };
  EXPECT_EQ(changed(0, "XK"), here + "ZIP directory: expected record 0, found other bytes");
  EXPECT_EQ(changed(8, "\x09"), here + "record 'zip/data.pkl': expected plain data, found encrypted data");
  EXPECT_EQ(changed(10, "\x0c"),
            here + "record 'zip/data.pkl': expected stored or deflated data, found method 12");
  EXPECT_THAT(changed(24, "\x01"),
              HasSubstr("record 'zip/data.pkl': expected as many stored bytes as the record has"));
  EXPECT_THAT(changed(42, "\x01"),
              HasSubstr("record 'zip/data.pkl': expected its header at offset 1, found none"));
  EXPECT_THAT(changed(28, "\xff\xff"), HasSubstr("ZIP directory: record 0: expected 65"));
  // A record that is said to unfold beyond what deflation can reach.
  const std::string deflated = read_file(golden("formats/deflated.pt"));
  std::string bomb = deflated;
  bomb.replace(bomb.find("PK\x01\x02") + 24, 4, "\xff\xff\xff\x7f");
  EXPECT_THAT(opening(dir, bomb), HasSubstr("deflated ones can hold, found 2147483647"));
  std::string wrong_size = deflated;
  wrong_size[wrong_size.find("PK\x01\x02") + 24] ^= 1;
  EXPECT_THAT(opening(dir, wrong_size), HasSubstr("expected deflated data of"));
}

TEST(PytorchFile, SaysWhatIsWrongWithALegacyFile) {
  test::TemporaryDirectory dir;
  const std::string here = "[pytorch] " + dir / "x.pt" + ": ";
  const std::string whole = read_file(golden("formats/legacy.pt"));
  EXPECT_EQ(opening(dir, whole), "(no error)");
  EXPECT_EQ(opening(dir, "\x80\x02K\x01."),
            here + "expected a file of torch.save, found another pickle (of the integer 1)");
  std::string protocol = whole;
  protocol.replace(whole.find("M\xe9\x03") + 1, 1, "\xea");
  EXPECT_EQ(opening(dir, protocol), here + "protocol: expected 1001, found the integer 1002");
  std::string big = whole;
  big[whole.find('\x88')] = '\x89';
  EXPECT_EQ(opening(dir, big), here + "expected little-endian numbers, found a file of a big-endian machine");
  EXPECT_THAT(opening(dir, whole.substr(0, whole.size() - 1)),
              ::testing::AllOf(HasSubstr("storage '"), HasSubstr("(is the file cut off?)")));
  for (size_t cut = 0; cut < whole.size(); ++cut) {
    const auto bytes = std::as_bytes(std::span(whole)).first(cut);
    EXPECT_NE(error_of([&] { parse_pytorch(bytes, "x"); }), "(no error)") << cut;
  }
  std::string tar(1024, '\0');
  tar.replace(0, 8, "sys_info");
  tar.replace(257, 5, "ustar");
  EXPECT_EQ(opening(dir, tar),
            here +
                "expected a ZIP archive or a pickle, found a tar archive as PyTorch before "
                "0.1.10 wrote it (load and save it with a newer one)");
}

TEST(PytorchWriter, RoundTripsEveryType) {
  test::TemporaryDirectory dir;
  const std::vector<DType> types = {DType::f64, DType::f32,     DType::f16,     DType::bf16, DType::i64,
                                    DType::i32, DType::i16,     DType::i8,      DType::u8,   DType::boolean,
                                    DType::u16, DType::f8_e4m3, DType::f8_e5m2, DType::u32,  DType::u64};
  std::vector<TensorEntry> entries;
  std::vector<Tensor> tensors;
  for (const DType type : types) {
    for (const Shape& shape : {Shape{}, Shape{3}, Shape{2, 0, 3}, Shape{2, 300}, Shape{1, 2, 3, 4}}) {
      entries.push_back({fmt::format("{}.{}", name(type), shape.str()), type, shape});
      Tensor tensor = Tensor::empty(shape, type);
      for (uint64_t i = 0; i < tensor.bytes(); ++i)
        tensor.raw()[i] = static_cast<std::byte>((i * 7 + entries.size()) & 1);
      tensors.push_back(tensor);
    }
  }
  PytorchWriter writer(dir / "x.pt", entries);
  for (size_t i = 0; i < entries.size(); ++i) writer.write(entries[i].name, tensors[i]);
  writer.finish();
  const PytorchFile file(dir / "x.pt");
  ASSERT_EQ(file.entries().size(), entries.size());
  for (size_t i = 0; i < entries.size(); ++i) {
    const TensorEntry* entry = file.find(entries[i].name);
    ASSERT_NE(entry, nullptr) << entries[i].name;
    EXPECT_EQ(entry->type, entries[i].type);
    EXPECT_EQ(entry->shape, entries[i].shape);
    EXPECT_EQ(bytes_of(file.read(entry->name)), bytes_of(tensors[i])) << entry->name;
  }
  EXPECT_THAT(file.verify(), ::testing::IsEmpty());
  const std::string bytes = read_file(dir / "x.pt");
  for (const auto& record : read_zip_directory(std::as_bytes(std::span(bytes)), "x"))
    EXPECT_EQ(record.begin % 64, 0u);
}

TEST(PytorchWriter, RefusesWhatItCannotWrite) {
  test::TemporaryDirectory dir;
  const std::string path = dir / "x.pt";
  const auto making = [&](std::vector<TensorEntry> entries) {
    return error_of([&] { PytorchWriter writer(path, std::move(entries)); });
  };
  const std::string here = "[pytorch] " + path + ": ";
  EXPECT_EQ(making({{"a", DType::f32, Shape{1}}, {"a", DType::f32, Shape{1}}}),
            here + "tensor 'a': expected once, found twice");
  EXPECT_THAT(making({{"a", DType::q4_0, Shape{32}}}),
              HasSubstr("tensor 'a': expected one of the format's types, f64"));
  EXPECT_THAT(making({{"\xff", DType::f32, Shape{1}}}), HasSubstr("expected a name in valid UTF-8"));
  PytorchWriter writer(path, {{"a", DType::f32, Shape{1}}, {"b", DType::f32, Shape{1}}});
  EXPECT_EQ(error_of([&] { writer.write("b", Tensor::zeros(Shape{1})); }),
            here + "tensor 'b': expected tensor 'a' next");
  EXPECT_EQ(error_of([&] { writer.write("a", Tensor::zeros(Shape{2})); }),
            here + "tensor 'a': expected f32 (1), found f32 (2)");
  writer.write("a", Tensor::zeros(Shape{1}));
  EXPECT_EQ(error_of([&] { writer.finish(); }), here + "tensor 'b': expected before the file is finished");
  EXPECT_FALSE(std::filesystem::exists(path));
}

}  // namespace
}  // namespace qkv
