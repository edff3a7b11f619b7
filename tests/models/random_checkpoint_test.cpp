#include "qkv/models/random_checkpoint.h"

#include <gtest/gtest.h>

#include <cstring>

#include "qkv/core/error.h"
#include "qkv/models/registry.h"
#include "qkv/models/weights.h"
#include "tests/models/tiny_models.h"

namespace qkv {
namespace {

Json config_of(const test::TinyModel& model) {
  return parse_json(model.config, model.name);
}

// What comes out of the checkpoint's tensors is what initialize_weights() gives, however the architecture
// fuses, stacks and turns them.
TEST(RandomCheckpoint, HoldsInitializedWeightsOfEveryLayout) {
  for (const auto& tiny : test::tiny_models()) {
    SCOPED_TRACE(tiny.name);
    const Json config = config_of(tiny);
    const RandomCheckpoint checkpoint(config, {.seed = 5, .standard_deviation = 0.1f}, {}, tiny.name);
    const auto loaded = make_model(config, tiny.name), made = make_model(config, tiny.name);
    load_weights(*loaded, checkpoint, Residence::trainable);
    initialize_weights(*made, 5, 0.1f);
    std::map<std::string, Tensor> expected;
    made->visit("", [&](const std::string& name, Tensor& parameter) { expected[name] = parameter; });
    loaded->visit("", [&](const std::string& name, Tensor& parameter) {
      ASSERT_EQ(parameter.bytes(), expected.at(name).bytes()) << name;
      EXPECT_EQ(std::memcmp(parameter.raw(), expected.at(name).raw(), parameter.bytes()), 0) << name;
    });
  }
}

TEST(RandomCheckpoint, TypeAndFilesAreWhatWasAskedFor) {
  const Json config = config_of(test::tiny_models().front());
  const RandomCheckpoint checkpoint(config, {.type = DType::bf16}, {{"tokenizer.json", "{}"}}, "there");
  for (const auto& entry : checkpoint.entries()) {
    EXPECT_EQ(entry.type, DType::bf16);
    const Tensor tensor = checkpoint.read(entry.name);
    EXPECT_EQ(tensor.dtype(), DType::bf16);
    EXPECT_EQ(tensor.shape(), entry.shape);
    EXPECT_EQ(tensor.bytes(), entry.bytes);
  }
  EXPECT_EQ((*checkpoint.config())["torch_dtype"], "bfloat16");
  EXPECT_EQ(checkpoint.file("tokenizer.json"), "{}");
  EXPECT_EQ(checkpoint.file("vocab.json"), std::nullopt);
}

TEST(RandomCheckpoint, RefusesWhatIsNoDeviationOrType) {
  const Json config = config_of(test::tiny_models().front());
  EXPECT_THROW(RandomCheckpoint(config, {.standard_deviation = 0.0f}, {}, "there"), Error);
  EXPECT_THROW(RandomCheckpoint(config, {.type = DType::q8_0}, {}, "there"), Error);
}

}  // namespace
}  // namespace qkv
