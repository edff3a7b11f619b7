// Conversions of the reference checkpoints of every architecture, there and back bit for bit, with the same
// logits in every form. They are optional data beside the checkout.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "qkv/core/atomic_file.h"
#include "qkv/core/error.h"
#include "qkv/formats/gguf.h"
#include "qkv/models/convert.h"
#include "tests/models/tiny_models.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> fixture_names() {
  std::vector<std::string> names;
  std::error_code ignored;
  for (const auto& item : fs::directory_iterator(test::shared("fixtures/models"), ignored)) {
    if (fs::exists(item.path() / "config.json")) names.push_back(item.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

// GGUF has no architecture for OPT, and no place for Falcon's ALiBi or the head that guesses masked words.
bool has_gguf_form(const std::string& name) {
  return name != "opt" && name != "falcon_rw_alibi" && name != "bert_mlm";
}

// GGUF has no key for the activation of these: its readers take GPT-2's GELU in tanh form.
bool gguf_keys_suffice(const std::string& name) {
  return name != "gpt2_bin";
}

class FixtureConversion : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    source_ = test::shared("fixtures/models/" + GetParam());
    expected_ = open_checkpoint(source_ + "/expected.safetensors");
    const Tensor ids = expected_->read("input_ids");
    for (int64_t i = 0; i < ids.elements(); ++i)
      tokens_.push_back(static_cast<int32_t>(ids.data<int64_t>()[i]));
    lengths_.assign(static_cast<size_t>(ids.dim(0)), ids.dim(1));
  }
  std::string difference_from_source(const std::string& path) {
    return test::difference(*open_checkpoint(source_), *open_checkpoint(path));
  }
  // Logits of decoders, hidden states of encoders.
  std::vector<float> outputs(const std::string& path) {
    const NoGrad off;
    const Bundle bundle = load_bundle(path, {.tokenizer_required = false});
    const Tensor hidden = bundle.model->forward(tokens_, Pass::whole(lengths_));
    return (bundle.model->head().defined() ? bundle.model->logits(hidden) : hidden).to_floats();
  }

  std::string source_;
  std::unique_ptr<Checkpoint> expected_;
  std::vector<int32_t> tokens_;
  std::vector<int64_t> lengths_;
  test::TemporaryDirectory directory_;
};

TEST_P(FixtureConversion, ThroughGguf) {
  if (!has_gguf_form(GetParam())) GTEST_SKIP() << "no GGUF form";
  const std::string gguf = directory_ / "model.gguf";
  convert_checkpoint(source_, gguf);
  convert_checkpoint(gguf, directory_ / "back");
  EXPECT_EQ(difference_from_source(directory_ / "back"), "");
  EXPECT_EQ(read_file(source_ + "/config.json"), read_file(directory_ / "back/config.json"));
  const std::vector<float> want = outputs(source_);
  EXPECT_EQ(want, outputs(gguf));

  if (!gguf_keys_suffice(GetParam())) return;
  // What any other reader of GGUF sees: no records of ours, the configuration from GGUF's own keys.
  const auto with = open_checkpoint(gguf);
  Metadata metadata;
  for (const auto& [key, value] : with->metadata().values()) {
    if (!key.starts_with("qkv.")) metadata.set(key, value);
  }
  const std::string plain = directory_ / "plain.gguf";
  write_gguf(plain, with->entries(), metadata,
             [&](const TensorEntry& entry) { return with->read(entry.name); });
  convert_checkpoint(plain, directory_ / "foreign");
  for (const std::string& path : {plain, directory_ / "foreign"}) {
    const std::vector<float> found = outputs(path);
    ASSERT_EQ(found.size(), want.size());
    double largest = 0;
    for (size_t i = 0; i < want.size(); ++i)
      largest = std::max(largest, std::abs(double{found[i]} - want[i]));
    EXPECT_LT(largest, 1e-4) << path;
  }
}

TEST_P(FixtureConversion, ThroughTheOtherContainers) {
  convert_checkpoint(source_, directory_ / "model.qkv");
  convert_checkpoint(directory_ / "model.qkv", directory_ / "from_qkv");
  EXPECT_EQ(difference_from_source(directory_ / "from_qkv"), "");
  EXPECT_EQ(read_file(source_ + "/config.json"), read_file(directory_ / "from_qkv/config.json"));
  convert_checkpoint(source_, directory_ / "model.pt");
  fs::copy_file(source_ + "/config.json", directory_ / "config.json");
  convert_checkpoint(directory_ / "model.pt", directory_ / "from_pt");
  EXPECT_EQ(difference_from_source(directory_ / "from_pt"), "");
  convert_checkpoint(source_, directory_ / "model.safetensors");
  const std::vector<float> want = outputs(source_);
  for (const char* form : {"model.qkv", "model.pt", "model.safetensors", "from_qkv", "from_pt"}) {
    EXPECT_EQ(want, outputs(directory_ / form)) << form;
  }
}

INSTANTIATE_TEST_SUITE_P(Fixtures, FixtureConversion, testing::ValuesIn(fixture_names()),
                         [](const auto& info) { return info.param; });
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(FixtureConversion);

}  // namespace
}  // namespace qkv
