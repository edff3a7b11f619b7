#include "qkv/formats/hf_directory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "qkv/core/atomic_file.h"
#include "qkv/core/error.h"
#include "qkv/formats/python_json.h"
#include "qkv/formats/pytorch.h"
#include "qkv/formats/safetensors.h"
#include "tests/formats/safetensors_bytes.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

namespace fs = std::filesystem;
using test::error_of;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string bytes_of(const Tensor& tensor) {
  return std::string(reinterpret_cast<const char*>(tensor.raw()), tensor.bytes());
}

// One u8 tensor of one element.
void write_shard(const std::string& path, const std::string& tensor_name) {
  SafetensorsWriter writer(path, {{tensor_name, DType::u8, Shape{1}}});
  writer.write(tensor_name, Tensor::from(std::vector<uint8_t>{9}, Shape{1}));
  writer.finish();
}

void expect_same_tensors(const Checkpoint& a, const Checkpoint& b) {
  ASSERT_EQ(a.entries().size(), b.entries().size());
  for (const auto& entry : a.entries()) {
    const TensorEntry* other = b.find(entry.name);
    ASSERT_NE(other, nullptr) << entry.name;
    EXPECT_EQ(entry.type, other->type);
    EXPECT_EQ(entry.shape, other->shape);
    EXPECT_EQ(bytes_of(a.read(entry.name)), bytes_of(b.read(entry.name))) << entry.name;
  }
}

class RealCheckpoint : public ::testing::TestWithParam<const char*> {};

TEST_P(RealCheckpoint, RoundTripsBitByBit) {
  const std::string source_path = test::shared("fixtures/models/") + GetParam();
  if (!fs::exists(source_path)) GTEST_SKIP() << source_path << " is absent";
  const auto source = open_checkpoint(source_path);
  EXPECT_EQ(source->format_name(), "huggingface");
  ASSERT_NE(source->config(), nullptr);
  EXPECT_EQ(source->config()->at("model_type"), "llama");
  ASSERT_NE(source->generation_config(), nullptr);
  EXPECT_GT(source->entries().size(), 20u);

  test::TemporaryDirectory dir;
  for (const uint64_t limit : {uint64_t{5'000'000'000}, uint64_t{60'000}, uint64_t{1}}) {
    AtomicDirectory target(dir / "model");
    write_hf_weights(
        target.path(), source->entries(), [&](const TensorEntry& entry) { return source->read(entry.name); },
        limit);
    target.commit();
    const HfDirectory copy(dir / "model");
    expect_same_tensors(*source, copy);
    EXPECT_EQ(fs::exists(dir / "model/model.safetensors"), limit > source->total_bytes());
    if (limit > source->total_bytes()) continue;
    const Json index = load_json(dir / "model/model.safetensors.index.json");
    EXPECT_EQ(index["metadata"]["total_size"], source->total_bytes());
    EXPECT_EQ(index["weight_map"].size(), source->entries().size());
    for (const auto& entry : copy.entries()) EXPECT_EQ(index["weight_map"][entry.name], entry.file);
  }
  // One tensor per shard at the limit of one byte.
  EXPECT_EQ(load_json(dir / "model/model.safetensors.index.json")["weight_map"][source->entries()[0].name],
            fmt::format("model-00001-of-{:05}.safetensors", source->entries().size()));
}

TEST_P(RealCheckpoint, IsRewrittenAsTheSameFile) {
  const std::string directory = test::shared("fixtures/models/") + GetParam();
  if (!fs::exists(directory)) GTEST_SKIP() << directory << " is absent";
  const std::string source_path = directory + "/" + open_checkpoint(directory)->entries()[0].file;
  const SafetensorsFile source(source_path);
  test::TemporaryDirectory dir;
  SafetensorsWriter writer(dir / "model.safetensors", source.entries());
  for (const auto& entry : writer.entries()) writer.write(entry.name, source.read(entry.name));
  writer.finish();
  EXPECT_EQ(read_file(dir / "model.safetensors"), read_file(source_path));
}

INSTANTIATE_TEST_SUITE_P(Llama, RealCheckpoint,
                         ::testing::Values("llama", "llama_sharded", "llama_bf16", "llama_f16"),
                         [](const auto& info) { return std::string(info.param); });

TEST(HfDirectory, FillsShardsUpToTheLimit) {
  test::TemporaryDirectory dir;
  const std::vector<TensorEntry> entries = {{"a", DType::u8, Shape{4}},
                                            {"b", DType::u8, Shape{6}},
                                            {"c", DType::u8, Shape{1}},
                                            {"big", DType::u8, Shape{30}},
                                            {"d", DType::u8, Shape{2}}};
  write_hf_weights(
      dir.path(), entries, [](const TensorEntry& entry) { return Tensor::zeros(entry.shape, entry.type); },
      10);
  const Json index = load_json(dir / "model.safetensors.index.json");
  const std::map<std::string, std::string> expected = {{"a", "model-00001-of-00004.safetensors"},
                                                       {"b", "model-00001-of-00004.safetensors"},
                                                       {"c", "model-00002-of-00004.safetensors"},
                                                       {"big", "model-00003-of-00004.safetensors"},
                                                       {"d", "model-00004-of-00004.safetensors"}};
  EXPECT_EQ(index["weight_map"], Json(expected));
  EXPECT_EQ(index["metadata"]["total_size"], 43);
}

TEST(HfDirectory, NewWeightsReplaceTheOldOnes) {
  test::TemporaryDirectory dir;
  write_file(dir / "model-of-mine.safetensors", "kept");
  const auto write = [&](int64_t elements, uint64_t limit) {
    write_hf_weights(
        dir.path(), {{"a", DType::u8, Shape{elements}}, {"b", DType::u8, Shape{elements}}},
        [](const TensorEntry& entry) { return Tensor::zeros(entry.shape, entry.type); }, limit);
    EXPECT_EQ(HfDirectory(dir.path()).read("b").elements(), elements);
    return std::distance(fs::directory_iterator(dir.path()), {});
  };
  EXPECT_EQ(write(1, 100), 2);
  EXPECT_EQ(write(2, 2), 4) << "two shards and an index; model.safetensors would shadow them";
  EXPECT_EQ(write(3, 100), 2);
  EXPECT_EQ(read_file(dir / "model-of-mine.safetensors"), "kept");
}

TEST(HfDirectory, RefusesDuplicatesBeforeItWrites) {
  test::TemporaryDirectory dir;
  EXPECT_THAT(error_of([&] {
                write_hf_weights(
                    dir.path(), {{"a", DType::u8, Shape{1}}, {"a", DType::u8, Shape{1}}},
                    [](const TensorEntry& entry) { return Tensor::zeros(entry.shape, entry.type); }, 1);
              }),
              HasSubstr("tensor 'a': expected once, found twice"));
  EXPECT_TRUE(fs::is_empty(dir.path()));
}

TEST(HfDirectory, ExplainsIndexesAndShardsThatDisagree) {
  test::TemporaryDirectory dir;
  const auto opening = [&](const std::string& index) {
    write_file(dir / "model.safetensors.index.json", index);
    return error_of([&] { HfDirectory directory(dir.path()); });
  };
  write_shard(dir / "1.safetensors", "a");
  write_shard(dir / "2.safetensors", "b");
  const std::string here = "[huggingface] " + dir.path() + ": ";
  const std::string index = "[huggingface] " + dir / "model.safetensors.index.json" + ": ";
  EXPECT_EQ(opening(R"({"weight_map":{"a":"1.safetensors","b":"2.safetensors"}})"), "(no error)");
  EXPECT_EQ(opening(R"({"weight_map":{"a":"1.safetensors","b":"3.safetensors"}})"),
            here +
                "shard '3.safetensors': expected by model.safetensors.index.json for tensor 'b', found no "
                "such file");
  EXPECT_EQ(
      opening(R"({"weight_map":{"a":"1.safetensors","c":"1.safetensors"}})"),
      here +
          "tensor 'c': expected in shard '1.safetensors' by model.safetensors.index.json, found in no shard");
  EXPECT_EQ(opening(R"({"weight_map":{"a":"2.safetensors","b":"1.safetensors"}})"),
            here +
                "tensor 'a': expected in shard '2.safetensors' by model.safetensors.index.json, found in "
                "'1.safetensors'");
  for (const char* escape :
       {"../1.safetensors", "/etc/passwd", "..", ".", "", "sub/1.safetensors", "x\\u0000y"}) {
    EXPECT_THAT(opening(fmt::format(R"({{"weight_map":{{"a":"{}"}}}})", escape)),
                StartsWith(index + "tensor 'a': expected the name of a file in the same directory, found '"));
  }
  EXPECT_THAT(opening(R"({"weight_map":{"a":")" + std::string(10000, 'x') + R"("}})"),
              HasSubstr("found no such file"));
  EXPECT_EQ(opening(R"({"weight_map":{"a":3}})"),
            index + "tensor 'a': expected the name of a file in the same directory, found the number 3");
  EXPECT_EQ(opening(R"({"weight_map":{"a":[]}})"),
            index + "tensor 'a': expected the name of a file in the same directory, found a list");
  EXPECT_EQ(opening(R"({"weight_map":{"a":"1.safetensors","a":"1.safetensors"}})"),
            index + "tensor 'a': expected once in weight_map, found twice");
  EXPECT_EQ(opening(R"({"weight_map":[]})"), index + "weight_map: expected an object, found a list");
  EXPECT_EQ(opening(R"({"weight_map":3})"), index + "weight_map: expected an object, found the number 3");
  EXPECT_EQ(opening(R"({"weight_map":{}})"), index + "weight_map: expected at least one tensor, found none");
  EXPECT_EQ(opening("{}"), index + "expected the key weight_map, found none");
  EXPECT_EQ(opening("[]"), index + "expected an object, found a list");
  EXPECT_EQ(opening("3"), index + "expected an object, found the number 3");
  EXPECT_THAT(opening("{"), StartsWith(index + "not valid JSON: parse error"));
  write_shard(dir / "3.safetensors", "a");
  EXPECT_EQ(opening(R"({"weight_map":{"a":"1.safetensors","b":"3.safetensors"}})"),
            here + "tensor 'a': expected in one shard, found in '1.safetensors' and '3.safetensors'");
  write_file(dir / "2.safetensors", "version https://git-lfs.github.com/spec/v1\n");
  EXPECT_THAT(opening(R"({"weight_map":{"a":"1.safetensors","b":"2.safetensors"}})"),
              HasSubstr("git lfs pull"));
}

TEST(HfDirectory, KeepsTensorsThatTheIndexLeavesOut) {
  test::TemporaryDirectory dir;
  write_file(dir / "1.safetensors", test::small_safetensors());
  write_file(dir / "model.safetensors.index.json",
             R"({"metadata":{"total_size":"x"},"weight_map":{"a":"1.safetensors"}})");
  EXPECT_NE(HfDirectory(dir.path()).find("b"), nullptr);
}

TEST(HfDirectory, FollowsLinksLikeTheHubsCache) {
  test::TemporaryDirectory blobs;
  test::TemporaryDirectory dir;
  write_shard(blobs / "0123abc", "a");
  fs::create_symlink(blobs / "0123abc", dir / "model.safetensors");
  EXPECT_EQ(bytes_of(HfDirectory(dir.path()).read("a")), "\x09");
}

TEST(HfDirectory, RefusesAConfigThatIsNoObject) {
  test::TemporaryDirectory dir;
  write_shard(dir / "model.safetensors", "a");
  write_file(dir / "config.json", "[]");
  EXPECT_THAT(error_of([&] { HfDirectory directory(dir.path()); }),
              HasSubstr("config.json: expected an object, found array"));
  write_file(dir / "config.json", "{");
  EXPECT_THAT(error_of([&] { HfDirectory directory(dir.path()); }), HasSubstr("config.json: not valid JSON"));
}

// One u8 tensor of one element, in PyTorch's format.
void write_pytorch(const std::string& path, const std::string& tensor_name) {
  PytorchWriter writer(path, {{tensor_name, DType::u8, Shape{1}}});
  writer.write(tensor_name, Tensor::from(std::vector<uint8_t>{9}, Shape{1}));
  writer.finish();
}

std::vector<std::string> names_of(const Checkpoint& checkpoint) {
  std::vector<std::string> names;
  for (const auto& entry : checkpoint.entries()) names.push_back(entry.name);
  return names;
}

TEST(HfDirectory, ReadsTheBinOfAnOldModel) {
  const std::string path = test::shared("fixtures/models/gpt2_bin");
  if (!fs::exists(path)) GTEST_SKIP() << path << " is absent";
  const auto model = open_checkpoint(path);
  EXPECT_EQ(model->format_name(), "huggingface");
  EXPECT_EQ(model->config()->at("model_type"), "gpt2");
  ASSERT_NE(model->find("transformer.wte.weight"), nullptr);
  ASSERT_NE(model->find("lm_head.weight"), nullptr);
  EXPECT_EQ(model->find("lm_head.weight")->file, "pytorch_model.bin");
  EXPECT_EQ(model->read("transformer.wte.weight").raw(), model->read("lm_head.weight").raw()) << "tied";
  EXPECT_EQ(model->read("transformer.wte.weight").shape(), (Shape{130, 64}));
}

TEST(HfDirectory, MixesFormatsUnderOneIndex) {
  test::TemporaryDirectory dir;
  write_shard(dir / "1.safetensors", "a");
  write_pytorch(dir / "2.bin", "b");
  write_file(dir / "pytorch_model.bin.index.json", R"({"weight_map":{"a":"1.safetensors","b":"2.bin"}})");
  const HfDirectory model(dir.path());
  EXPECT_THAT(names_of(model), ::testing::ElementsAre("a", "b"));
  EXPECT_EQ(bytes_of(model.read("a")), "\x09");
  EXPECT_EQ(bytes_of(model.read("b")), "\x09");
  write_file(dir / "pytorch_model.bin.index.json", R"({"weight_map":{"a":"1.safetensors","b":"3.bin"}})");
  EXPECT_THAT(
      error_of([&] { HfDirectory directory(dir.path()); }),
      HasSubstr(
          "shard '3.bin': expected by pytorch_model.bin.index.json for tensor 'b', found no such file"));
  write_file(dir / "2.bin", "x");
  write_file(dir / "pytorch_model.bin.index.json", R"({"weight_map":{"a":"1.safetensors","b":"2.bin"}})");
  EXPECT_THAT(error_of([&] { HfDirectory directory(dir.path()); }),
              HasSubstr("2.bin: expected a ZIP archive or a pickle, found other data"));
}

TEST(HfDirectory, PrefersTheUsualNames) {
  test::TemporaryDirectory dir;
  write_pytorch(dir / "pytorch_model.bin", "old");
  EXPECT_THAT(names_of(HfDirectory(dir.path())), ::testing::ElementsAre("old"));
  write_shard(dir / "model.safetensors", "new");
  EXPECT_THAT(names_of(HfDirectory(dir.path())), ::testing::ElementsAre("new"));
}

TEST(HfDirectory, TakesTheOnlyOtherWeights) {
  test::TemporaryDirectory dir;
  write_pytorch(dir / "net.pth", "a");
  EXPECT_FALSE(HfDirectory::recognizes(dir.path())) << "no config.json";
  write_file(dir / "config.json", "{}");
  write_pytorch(dir / "optimizer.pt", "no weights");
  write_pytorch(dir / "training_args.bin", "no weights");
  EXPECT_THAT(names_of(*open_checkpoint(dir.path())), ::testing::ElementsAre("a"));
  write_shard(dir / "net-00001-of-00002.safetensors", "b");
  EXPECT_THAT(names_of(HfDirectory(dir.path())), ::testing::ElementsAre("b")) << "safetensors before PyTorch";
  write_shard(dir / "net-00002-of-00002.safetensors", "c");
  EXPECT_THAT(names_of(HfDirectory(dir.path())), ::testing::ElementsAre("b", "c"))
      << "all shards, without an index";
  write_shard(dir / "other.safetensors", "d");
  EXPECT_EQ(
      error_of([&] { HfDirectory directory(dir.path()); }),
      "[huggingface] " + dir.path() +
          ": expected model.safetensors, model.safetensors.index.json, pytorch_model.bin, "
          "pytorch_model.bin.index.json, or one other weight file; found net-00001-of-00002.safetensors, "
          "net-00002-of-00002.safetensors, other.safetensors");
}

TEST(PythonJson, ReadsTheNumbersThatPythonWrites) {
  const Json json = parse_python_json(
      R"({"limit": [0.0, Infinity], "x": -Infinity, "y": NaN, "s": "\"NaN, Infinity\\"})", "f");
  EXPECT_EQ(json["limit"][1].get<double>(), INFINITY);
  EXPECT_EQ(json["x"].get<double>(), -INFINITY);
  EXPECT_TRUE(std::isnan(json["y"].get<double>()));
  EXPECT_EQ(json["s"], "\"NaN, Infinity\\");
  EXPECT_EQ(dump_python_json(json),
            R"({"limit":[0.0,Infinity],"x":-Infinity,"y":NaN,"s":"\"NaN, Infinity\\"})");
  EXPECT_THAT(error_of([] { parse_python_json("{\"a\": Infinite}", "f"); }), StartsWith("f: not valid JSON"));
  EXPECT_THAT(error_of([] { parse_python_json("{\"a\": \"\\", "f"); }), StartsWith("f: not valid JSON"));
}

TEST(OpenCheckpoint, TellsFormatsByContent) {
  test::TemporaryDirectory dir;
  write_file(dir / "weights", test::small_safetensors());
  EXPECT_EQ(open_checkpoint(dir / "weights")->format_name(), "safetensors");
  EXPECT_EQ(open_checkpoint(dir / "weights")->config(), nullptr);
  write_file(dir / "config.json", R"({"model_type":"llama"})");
  EXPECT_EQ(open_checkpoint(dir / "weights")->config()->at("model_type"), "llama") << "the config beside it";
  const std::string before = fs::current_path();
  fs::current_path(dir.path());
  EXPECT_NE(open_checkpoint("weights")->config(), nullptr) << "a path without a directory";
  fs::current_path(before);
}

TEST(OpenCheckpoint, SaysWhatWasFoundInstead) {
  test::TemporaryDirectory dir;
  const auto opening = [&](const std::string& name) {
    return error_of([&] { open_checkpoint(dir / name); });
  };
  EXPECT_THAT(opening("absent"), HasSubstr("found no such file or directory"));
  EXPECT_THAT(opening(std::string(300, 'x')), HasSubstr("found File name too long"));
  fs::create_directory(dir / "model");
  EXPECT_THAT(opening("model"), HasSubstr("found an empty directory"));
  write_file(dir / "model/config.json", "{}");
  write_file(dir / "model/pytorch_model.bin", "x");
  EXPECT_THAT(opening("model"),
              HasSubstr("pytorch_model.bin: expected a ZIP archive or a pickle, found other data"));
  fs::remove(dir / "model/pytorch_model.bin");
  EXPECT_THAT(opening("model"), HasSubstr("found a directory with config.json"));
  for (int i = 0; i < 10; ++i) write_file(dir / fmt::format("model/f{}", i), "");
  EXPECT_THAT(opening("model"), HasSubstr("f6 and 3 more"));
  write_file(dir / "m.gguf", "GGUF\x03");
  EXPECT_THAT(opening("m.gguf"), HasSubstr("m.gguf: version: expected 4 bytes"));
  write_file(dir / "m.bin", std::string("PK\x03\x04\x00\x00\x08\x08 and more", 17));
  EXPECT_THAT(opening("m.bin"), HasSubstr("expected the directory of a ZIP archive at the end, found none"));
  write_file(dir / "m.txt", "hello");
  EXPECT_THAT(opening("m.txt"), HasSubstr("found a file of 5 bytes of no known kind"));
  write_file(dir / "m.safetensors", "hello");
  EXPECT_THAT(opening("m.safetensors"),
              HasSubstr("[safetensors] " + dir / "m.safetensors" + ": expected at least 8 bytes, found 5"));
}

}  // namespace
}  // namespace qkv
