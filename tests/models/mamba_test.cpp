// State-space models: a GGUF file against llama.cpp's logits, configurations both ways, and impossible ones.
#include <gmock/gmock.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/formats/checkpoint.h"
#include "qkv/models/registry.h"
#include "qkv/models/weights.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

Json mamba_config() {
  return {{"model_type", "mamba"},
          {"vocab_size", 40},
          {"hidden_size", 24},
          {"num_hidden_layers", 2},
          {"state_size", 6}};
}

Json mamba2_config() {
  return {{"model_type", "mamba2"}, {"vocab_size", 40}, {"hidden_size", 24}, {"num_hidden_layers", 2},
          {"state_size", 6},        {"num_heads", 4},   {"head_dim", 12},    {"n_groups", 2}};
}

TEST(Mamba, AGgufFileGivesTheLogitsOfLlamaCpp) {
  const std::string path = test::shared("data/reference/gguf_arch/mamba.gguf");
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "reference file not found at " << path;
  const auto checkpoint = open_checkpoint(path);
  const ModelConfig config = model_config(*checkpoint);
  const auto model = make_model(*config.config, config.where);
  load_weights(*model, *checkpoint, Residence::inference);
  const Json expected = load_json(test::shared("data/reference/gguf_arch/mamba.logits.json"));
  const auto tokens = expected["tokens"].get<std::vector<int32_t>>();
  const NoGrad off;
  const Tensor logits =
      model->logits(model->forward(tokens, Pass::whole({static_cast<int64_t>(tokens.size())})));
  double difference = 0;
  for (size_t t = 0; t < tokens.size(); ++t) {
    const auto row = expected["logits"][t].get<std::vector<double>>();
    ASSERT_EQ(static_cast<int64_t>(row.size()), logits.cols());
    for (size_t v = 0; v < row.size(); ++v) {
      difference = std::max(difference, std::abs(row[v] - double{logits.data<float>()[t * row.size() + v]}));
    }
  }
  EXPECT_LT(difference, 1e-4);
}

TEST(Mamba, SizesFollowTheChannelsWhereNothingIsSaid) {
  Json config = mamba_config();
  const auto model = make_model(config, "config");
  std::map<std::string, Shape> shapes;
  model->visit("", [&](const std::string& name, Tensor& parameter) { shapes[name] = parameter.shape(); });
  EXPECT_EQ(shapes.at("blocks.1.ssm.in.weight"), Shape({48, 24}));
  EXPECT_EQ(shapes.at("blocks.1.ssm.parameters.weight"), Shape({2 + 12, 48}));
  EXPECT_EQ(shapes.at("blocks.1.ssm.dt.weight"), Shape({48, 2}));
  EXPECT_EQ(shapes.count("head.weight"), 0u);  // tied
  config["time_step_rank"] = "auto";
  config["tie_word_embeddings"] = false;
  const auto other = make_model(config, "config");
  EXPECT_EQ(other->parameter_count(), model->parameter_count() + 40 * 24);
}

// A model on placeholders, initialized, runs a token in every dtype and gives finite logits.
TEST(Mamba, InitializedModelsRun) {
  for (Json config : {mamba_config(), mamba2_config()}) {
    for (const char* type : {"mamba", "falcon_mamba"}) {
      if (config["model_type"] != "mamba2") config["model_type"] = type;
      const auto model = make_model(config, "config");
      initialize_weights(*model, 1, 0.02f);
      for (const DType dtype : {DType::f32, DType::bf16}) {
        const NoGrad off;
        Pass pass = Pass::whole({5, 3});
        pass.compute_type = dtype;
        const Tensor logits = model->logits(model->forward({1, 2, 3, 4, 5, 6, 7, 8}, pass));
        for (const float value : logits.to_floats())
          ASSERT_TRUE(std::isfinite(value)) << config["model_type"];
      }
    }
  }
}

TEST(Mamba, GgufKeysAreThoseOfLlamaCpp) {
  Json config = mamba_config();
  for (const bool normalized : {false, true}) {
    config["model_type"] = normalized ? "falcon_mamba" : "mamba";
    Metadata metadata;
    find_architecture(config, "config").to_gguf(JsonView(config, "config"), metadata);
    EXPECT_EQ(metadata.integer("mamba.embedding_length"), 24);
    EXPECT_EQ(metadata.integer("mamba.ssm.inner_size"), 48);
    EXPECT_EQ(metadata.integer("mamba.ssm.state_size"), 6);
    EXPECT_EQ(metadata.integer("mamba.ssm.conv_kernel"), 4);
    EXPECT_EQ(metadata.integer("mamba.ssm.time_step_rank"), 2);
    EXPECT_EQ(metadata.integer("mamba.attention.head_count"), 0);
    EXPECT_EQ(metadata.boolean("mamba.ssm.dt_b_c_rms"), normalized);
  }
  config = mamba2_config();
  Metadata metadata;
  find_architecture(config, "config").to_gguf(JsonView(config, "config"), metadata);
  EXPECT_EQ(metadata.integer("mamba2.ssm.time_step_rank"), 4);
  EXPECT_EQ(metadata.integer("mamba2.ssm.group_count"), 2);
  config["time_step_limit"] = {0.01, 0.5};
  EXPECT_THAT(test::error_of(
                  [&] { find_architecture(config, "config").to_gguf(JsonView(config, "config"), metadata); }),
              testing::HasSubstr("time_step_limit"));
}

TEST(Mamba, ImpossibleConfigurationsAreRefused) {
  const auto error = [](Json config, const char* key, const Json& value) {
    config[key] = value;
    return test::error_of([&] { make_model(config, "config.json"); });
  };
  EXPECT_THAT(error(mamba_config(), "state_size", 0), testing::HasSubstr("key 'state_size': expected 1 to"));
  EXPECT_THAT(error(mamba_config(), "time_step_rank", -1), testing::HasSubstr("key 'time_step_rank'"));
  EXPECT_THAT(error(mamba_config(), "hidden_act", "gelu"), testing::HasSubstr("expected silu"));
  EXPECT_THAT(error(mamba_config(), "expand", -2), testing::HasSubstr("key 'expand'"));
  EXPECT_THAT(error(mamba2_config(), "num_heads", 5), testing::HasSubstr("are not the 48 channels"));
  EXPECT_THAT(error(mamba2_config(), "n_groups", 3), testing::HasSubstr("is not a multiple of n_groups 3"));
  EXPECT_THAT(error(mamba2_config(), "time_step_limit", {1, 0}), testing::HasSubstr("two numbers in order"));
}

}  // namespace
}  // namespace qkv
