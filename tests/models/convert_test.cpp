// Conversions there and back, on tiny models made here.
#include "qkv/models/convert.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "qkv/core/atomic_file.h"
#include "qkv/formats/gguf.h"
#include "qkv/formats/safetensors.h"
#include "qkv/models/gguf_conversion.h"
#include "tests/models/tiny_models.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

using test::difference;
using test::TinyModel;

std::string difference_of(const std::string& a, const std::string& b) {
  return difference(*open_checkpoint(a), *open_checkpoint(b));
}

struct Case {
  TinyModel model;
  DType type;
};
void PrintTo(const Case& value, std::ostream* out) {
  *out << value.model.name << " " << name(value.type);
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const auto& model : test::tiny_models()) {
    for (DType type : {DType::f32, DType::bf16, DType::f16}) all.push_back({model, type});
  }
  return all;
}

class Conversion : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    const Json config = parse_json(GetParam().model.config, "config");
    const Architecture* architecture = find_architecture_or_null(config);
    if (architecture == nullptr) GTEST_SKIP() << "architecture not implemented";
    has_gguf_ = architecture->to_gguf != nullptr;
    source_ = directory_ / "source";
    std::filesystem::create_directory(source_);
    test::write_tiny_model(GetParam().model, source_, GetParam().type);
  }
  // IN -> OUT -> a directory again.
  std::string back_from(const std::string& file) {
    convert_checkpoint(source_, directory_ / file);
    convert_checkpoint(directory_ / file, directory_ / "back");
    const std::string result = difference_of(source_, directory_ / "back");
    EXPECT_EQ(read_file(source_ + "/config.json"), read_file(directory_ / "back/config.json"));
    return result;
  }
  std::vector<float> logits(const std::string& path) {
    const NoGrad off;
    const Bundle bundle = load_bundle(path, {.tokenizer_required = false});
    const std::vector<int32_t> tokens = {3, 1, 4, 15, 9, 26, 5, 35, 8, 9};
    return bundle.model
        ->logits(bundle.model->forward(tokens, Pass::whole({static_cast<int64_t>(tokens.size())})))
        .to_floats();
  }

  test::TemporaryDirectory directory_;
  std::string source_;
  bool has_gguf_ = false;
};

TEST_P(Conversion, ThroughGgufExactly) {
  if (!has_gguf_) GTEST_SKIP() << "no GGUF form";
  EXPECT_EQ(back_from("model.gguf"), "");
  EXPECT_EQ(logits(source_), logits(directory_ / "model.gguf"));
}

TEST_P(Conversion, ThroughGgufAndQkvExactly) {
  if (!has_gguf_) GTEST_SKIP() << "no GGUF form";
  convert_checkpoint(source_, directory_ / "model.gguf");
  convert_checkpoint(directory_ / "model.gguf", directory_ / "gguf.qkv");
  EXPECT_EQ(difference_of(directory_ / "model.gguf", directory_ / "gguf.qkv"), "");
  convert_checkpoint(directory_ / "gguf.qkv", directory_ / "back");
  EXPECT_EQ(difference_of(source_, directory_ / "back"), "");
  EXPECT_EQ(logits(source_), logits(directory_ / "gguf.qkv"));
}

TEST_P(Conversion, ThroughQkvSafetensorsAndPytorchExactly) {
  for (const char* file : {"model.qkv", "model.safetensors"}) {
    EXPECT_EQ(back_from(file), "") << file;
    EXPECT_EQ(logits(source_), logits(directory_ / file)) << file;
    std::filesystem::remove_all(directory_ / "back");
  }
  convert_checkpoint(source_, directory_ / "model.pt");
  EXPECT_EQ(difference_of(source_, directory_ / "model.pt"), "");
}

// A file that another program wrote has no record of what it was made from: its values decide.
TEST_P(Conversion, GgufWithoutOurRecordsKeepsValues) {
  if (!has_gguf_) GTEST_SKIP() << "no GGUF form";
  convert_checkpoint(source_, directory_ / "model.gguf");
  const auto with = open_checkpoint(directory_ / "model.gguf");
  Metadata metadata;
  for (const auto& [key, value] : with->metadata().values()) {
    if (!key.starts_with("qkv.")) metadata.set(key, value);
  }
  write_gguf(directory_ / "plain.gguf", with->entries(), metadata,
             [&](const TensorEntry& entry) { return with->read(entry.name); });
  convert_checkpoint(directory_ / "plain.gguf", directory_ / "back");
  const std::vector<float> want = logits(source_);
  for (const std::string& path : {directory_ / "plain.gguf", directory_ / "back"}) {
    const std::vector<float> found = logits(path);
    ASSERT_EQ(want.size(), found.size());
    // Values that are stored transformed come back rounded; the logits are of order 1 and f32 keeps 7 digits.
    for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(found[i], want[i], 2e-4) << path << " " << i;
  }
}

TEST_P(Conversion, ToAnotherType) {
  if (GetParam().type != DType::f32) GTEST_SKIP() << "f32 is enough";
  ConvertOptions options;
  options.type = DType::bf16;
  convert_checkpoint(source_, directory_ / "small", options);
  const auto small = open_checkpoint(directory_ / "small"), source = open_checkpoint(source_);
  for (const auto& entry : small->entries()) {
    ASSERT_EQ(entry.type, DType::bf16);
    ASSERT_EQ(small->read(entry.name).to_floats(), source->read(entry.name).to(DType::bf16).to_floats())
        << entry.name;
  }
  EXPECT_EQ(load_json(directory_ / "small/config.json")["torch_dtype"], "bfloat16");
  if (!has_gguf_) return;
  convert_checkpoint(source_, directory_ / "small.gguf", options);
  const auto gguf = open_checkpoint(directory_ / "small.gguf");
  EXPECT_EQ(gguf->metadata().integer("general.file_type"), 32);
  for (const auto& entry : gguf->entries()) {
    EXPECT_TRUE(entry.type == DType::bf16 ||
                (entry.type == DType::f32 && gguf_wants_f32(entry.name, entry.shape)))
        << entry.name << " " << name(entry.type);
  }
  convert_checkpoint(directory_ / "small.gguf", directory_ / "from_gguf");
  convert_checkpoint(directory_ / "from_gguf", directory_ / "again.gguf", options);
  EXPECT_EQ(difference_of(directory_ / "small.gguf", directory_ / "again.gguf"), "");
}

INSTANTIATE_TEST_SUITE_P(TinyModels, Conversion, testing::ValuesIn(cases()), [](const auto& info) {
  return fmt::format("{}_{}", info.param.model.name, name(info.param.type));
});

// ---- what needs no architecture, and what is refused ----

class ConversionFiles : public testing::Test {
 protected:
  ConversionFiles() {
    std::filesystem::create_directory(source_);
    test::write_tiny_model(test::tiny_models()[0], source_, DType::f32);
  }
  std::string error(const std::string& from, const std::string& to, const ConvertOptions& options = {}) {
    return test::error_of([&] { convert_checkpoint(from, to, options); });
  }
  test::TemporaryDirectory directory_;
  std::string source_ = directory_ / "source";
};

TEST_F(ConversionFiles, UnknownArchitecturesMoveByName) {
  write_file(source_ + "/config.json", R"({"model_type": "unheard-of"})");
  convert_checkpoint(source_, directory_ / "a.qkv");
  convert_checkpoint(directory_ / "a.qkv", directory_ / "b.pt");
  convert_checkpoint(directory_ / "b.pt", directory_ / "c.safetensors");
  convert_checkpoint(directory_ / "c.safetensors", directory_ / "d");
  EXPECT_EQ(difference_of(source_, directory_ / "d"), "");
  convert_checkpoint(directory_ / "a.qkv", directory_ / "e");
  EXPECT_EQ(read_file(directory_ / "e/config.json"), R"({"model_type": "unheard-of"})");
  EXPECT_NE(error(source_, directory_ / "x.gguf").find("architecture 'unheard-of' has no forward pass"),
            std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(directory_ / "x.gguf"));
}

TEST_F(ConversionFiles, ShardsAndManifest) {
  ConvertOptions options;
  options.max_file_bytes = 20'000;
  options.manifest = directory_ / "manifest.json";
  const ConvertReport report = convert_checkpoint(source_, directory_ / "sharded", options);
  EXPECT_TRUE(std::filesystem::exists(directory_ / "sharded/model.safetensors.index.json"));
  EXPECT_EQ(difference_of(source_, directory_ / "sharded"), "");
  const Json manifest = load_json(options.manifest);
  EXPECT_EQ(manifest["tensors"].size(), report.tensors);
  const Json first = manifest["tensors"];
  // The same tensors have the same hashes in another container, whatever their order.
  options.max_file_bytes.reset();
  convert_checkpoint(source_, directory_ / "other.qkv", options);
  const auto hashes = [](const Json& tensors) {
    std::map<std::string, std::string> result;
    for (const auto& tensor : tensors) result[tensor["name"]] = tensor["xxh3_128"];
    return result;
  };
  EXPECT_EQ(hashes(first), hashes(load_json(options.manifest)["tensors"]));
  EXPECT_EQ(hashes(first).at("model.norm.weight").size(), 32u);
}

TEST_F(ConversionFiles, QuantizedTensorsAreDequantizedOnlyOnRequest) {
  // A file with one block-quantized matrix, as from another program.
  const auto plain = open_checkpoint(source_);
  std::vector<TensorEntry> entries = plain->entries();
  for (auto& entry : entries) entry.type = entry.shape.rank() == 2 ? DType::q8_0 : entry.type;
  const std::string quantized = directory_ / "quantized.gguf";
  Metadata metadata;
  metadata.set("general.architecture", std::string("llama"));
  write_gguf(quantized, entries, metadata,
             [&](const TensorEntry& entry) { return plain->read(entry.name).to(entry.type); });
  convert_checkpoint(quantized, directory_ / "kept.qkv");
  EXPECT_EQ(difference_of(quantized, directory_ / "kept.qkv"), "");
  convert_checkpoint(directory_ / "kept.qkv", directory_ / "back.gguf");
  EXPECT_EQ(difference_of(quantized, directory_ / "back.gguf"), "");
  ConvertOptions options;
  options.type = DType::f16;
  convert_checkpoint(quantized, directory_ / "wide.gguf", options);
  for (const auto& entry : open_checkpoint(directory_ / "wide.gguf")->entries()) {
    EXPECT_EQ(entry.type, entry.shape.rank() == 2 ? DType::f16 : DType::f32);
  }
}

TEST_F(ConversionFiles, NothingIsDestroyed) {
  EXPECT_EQ(error(source_, source_), source_ + ": expected another place than the source's");
  const std::string file = source_ + "/model.safetensors";
  EXPECT_EQ(error(file, file), file + ": expected another place than the source's");
  std::filesystem::create_directory(directory_ / "full");
  write_file(directory_ / "full/mine", "x");
  EXPECT_EQ(error(source_, directory_ / "full"),
            (directory_ / "full") + ": expected a new or empty directory, found one with files");
  EXPECT_EQ(error(source_, directory_ / "none/x.gguf"),
            (directory_ / "none/x.gguf") + ": expected an existing directory " + (directory_ / "none") +
                " to write into, found none");
  std::filesystem::create_directory(directory_ / "d.qkv");
  EXPECT_EQ(error(source_, directory_ / "d.qkv"),
            (directory_ / "d.qkv") + ": expected a file, found a directory");
  // A defect found while writing leaves nothing behind.
  std::string bytes = read_file(file);
  bytes.resize(bytes.size() - 100);
  write_file(file, bytes);
  EXPECT_NE(error(source_, directory_ / "x.qkv").find("model.safetensors"), std::string::npos);
  size_t left = 0;
  for (const auto& item : std::filesystem::directory_iterator(directory_.path()))
    left += item.is_directory() ? 0 : 1;
  EXPECT_EQ(left, 0u);
}

TEST_F(ConversionFiles, ExtraTensorsAreErrors) {
  std::vector<TensorEntry> entries = open_checkpoint(source_)->entries();
  const auto plain = open_checkpoint(source_);
  entries.push_back({"model.extra", DType::f32, {3}});
  std::filesystem::create_directory(directory_ / "extra");
  std::filesystem::copy_file(source_ + "/config.json", directory_ / "extra/config.json");
  SafetensorsWriter writer(directory_ / "extra/model.safetensors", entries);
  for (const auto& entry : writer.entries()) {
    writer.write(entry.name, entry.name == "model.extra" ? Tensor::zeros({3}) : plain->read(entry.name));
  }
  writer.finish();
  if (find_architecture(load_json(source_ + "/config.json"), "c").to_gguf == nullptr)
    GTEST_SKIP() << "no GGUF form yet";
  EXPECT_EQ(error(directory_ / "extra", directory_ / "x.gguf"),
            (directory_ / "extra") + ": tensor 'model.extra' (3) is not part of LlamaForCausalLM");
}

}  // namespace
}  // namespace qkv
