#include "qkv/compress/prune.h"

#include "qkv/compress/stored_model.h"
#include "tests/compress/compress_support.h"

namespace qkv {
namespace {

const std::vector<int32_t> kTokens = {3, 17, 5, 9, 130, 2, 8, 1, 39, 44, 71, 5};

CalibrationOptions calibration() {
  return {.context = 64, .sequences = 16};
}

class Prune : public testing::Test {
 protected:
  void write(const Json& config, const std::function<void(const std::string&, Tensor&)>& change = {}) {
    model = test::random_model(config);
    if (change) model->visit("", change);
    test::write_model(*model, source);
  }
  StructureOptions structure(double heads, double channels, double layers) const {
    return {.heads = heads,
            .channels = channels,
            .layers = layers,
            .text = test::words(1500),
            .calibration = calibration()};
  }
  // Largest difference of logits, relative to the largest logit.
  double difference(const std::string& path) const {
    const std::vector<float> before = test::logits_of(*model, kTokens);
    double largest = 0;
    for (const float logit : before) largest = std::max(largest, std::abs(double{logit}));
    return test::largest_difference(test::logits_of(*load_bundle(path).model, kTokens), before) / largest;
  }

  test::TemporaryDirectory work;
  const std::string source = work / "source", output = work / "out";
  std::unique_ptr<Model> model;
};

TEST_F(Prune, MatricesOfBlocksGetTheirZerosInEveryFormat) {
  write(test::llama_config());
  for (const PruneMethod method : {PruneMethod::magnitude, PruneMethod::wanda, PruneMethod::sparsegpt}) {
    for (const char* ending : {"", ".gguf", ".qkv"}) {
      PruneOptions options{.method = method,
                           .pattern = {.zeros = 2, .of = 4},
                           .text = test::words(1500),
                           .calibration = calibration()};
      const std::string path = output + std::to_string(static_cast<int>(method)) + ending;
      const PruneReport report = prune_weights(source, path, options);
      EXPECT_EQ(report.tensors.size(), 21u);
      Bundle pruned = load_bundle(path);
      const auto parameters = test::parameters_of(*pruned.model), before = test::parameters_of(*model);
      for (const auto& [name, values] : parameters) {
        if (!name.starts_with("blocks.") || values.shape().rank() != 2) {
          EXPECT_EQ(values.to_floats(), before.at(name).to_floats()) << name;
          continue;
        }
        const std::vector<float> floats = values.to_floats();
        for (size_t i = 0; i < floats.size(); i += 4)
          ASSERT_EQ(std::count(floats.begin() + static_cast<std::ptrdiff_t>(i),
                               floats.begin() + static_cast<std::ptrdiff_t>(i + 4), 0.0f),
                    2)
              << name;
      }
    }
  }
}

TEST_F(Prune, SparseGptStaysNearestToTheModel) {
  write(test::llama_config());
  std::map<PruneMethod, double> errors;
  for (const PruneMethod method : {PruneMethod::magnitude, PruneMethod::wanda, PruneMethod::sparsegpt}) {
    const std::string path = output + std::to_string(static_cast<int>(method));
    const PruneReport report = prune_weights(source, path,
                                             {.method = method,
                                              .pattern = {.share = 0.5},
                                              .text = test::words(1500),
                                              .calibration = calibration()});
    for (const auto& tensor : report.tensors) EXPECT_NEAR(tensor.sparsity, 0.5, 1e-9) << tensor.name;
    const std::vector<float> before = test::logits_of(*model, kTokens),
                             after = test::logits_of(*load_bundle(path).model, kTokens);
    for (size_t i = 0; i < before.size(); ++i)
      errors[method] += (before[i] - after[i]) * (before[i] - after[i]);
  }
  EXPECT_LT(errors[PruneMethod::sparsegpt], errors[PruneMethod::magnitude]);
}

// Heads and channels that add nothing to the residual stream can go, in every format and with everything that
// names sizes.
TEST_F(Prune, WhatAddsNothingIsTakenAwayWithoutAChange) {
  const auto silence = [](const std::string& name, Tensor& parameter) {
    float* values = parameter.data<float>();
    const int64_t columns = parameter.cols();
    for (int64_t r = 0; r < parameter.rows() && parameter.shape().rank() == 2; ++r) {
      if (name.ends_with("attn.out.weight"))
        std::fill_n(values + r * columns + 32, 32, 0.0f);  // the second of two groups
      if (name.ends_with("mlp.down.weight")) {
        for (int64_t c = 0; c < columns; c += 2) values[r * columns + c] = 0;
      }
    }
  };
  for (const Json& config :
       {test::llama_config(),
        test::llama_config(
            {{"model_type", "qwen3"}, {"architectures", {"Qwen3ForCausalLM"}}, {"head_dim", 16}})}) {
    std::filesystem::remove_all(source);
    write(config, silence);
    for (const char* ending : {"", ".gguf", ".qkv"}) {
      const std::string path = output + std::string(config.at("model_type")) + ending;
      const PruneReport report = prune_structure(source, path, structure(0.5, 0.5, 0));
      EXPECT_EQ(report.heads, 2);
      EXPECT_EQ(report.kv_heads, 1);
      EXPECT_EQ(report.hidden, 48);
      EXPECT_LT(report.parameters, report.parameters_before);
      const Bundle smaller = load_bundle(path);
      EXPECT_EQ(smaller.model->info().heads, 2);
      EXPECT_EQ(smaller.model->info().head_dim, 16);
      EXPECT_EQ(smaller.model->info().hidden, 48);
      EXPECT_LT(difference(path), 1e-5) << path;
    }
  }
}

TEST_F(Prune, LayersThatChangeNothingGoFirst) {
  write(test::llama_config(), [](const std::string& name, Tensor& parameter) {
    if (name == "blocks.1.attn.out.weight" || name == "blocks.1.mlp.down.weight") parameter.fill(0);
  });
  const PruneReport report = prune_structure(source, output, structure(0, 0, 0.34));
  EXPECT_EQ(report.removed_layers, std::vector<int64_t>{1});
  EXPECT_EQ(load_bundle(output).model->info().layers, 2);
  EXPECT_LT(difference(output), 1e-6);
}

TEST_F(Prune, ChannelsOfGpt2AreCounted) {
  write({{"architectures", {"GPT2LMHeadModel"}},
         {"model_type", "gpt2"},
         {"vocab_size", 272},
         {"n_embd", 64},
         {"n_layer", 2},
         {"n_head", 4},
         {"n_positions", 64}});
  EXPECT_EQ(prune_structure(source, output, structure(0, 0.25, 0)).hidden, 192);
  EXPECT_EQ(load_bundle(output).model->info().hidden, 192);
  // Its head size is the channels over the heads.
  EXPECT_THAT(test::error_of([&] { prune_structure(source, work / "x", structure(0.5, 0, 0)); }),
              testing::HasSubstr("the configuration of gpt2 cannot say that 2 heads of 16 dimensions"));
}

TEST_F(Prune, NonsenseIsRefusedAndLeavesNothing) {
  write(test::llama_config());
  const auto refusal = [&](const StructureOptions& options) {
    const std::string error = test::error_of([&] { prune_structure(source, output, options); });
    EXPECT_FALSE(std::filesystem::exists(output)) << error;
    return error;
  };
  EXPECT_EQ(refusal(structure(1, 0, 0)), "prune: expected a share of heads from 0 to below 1, found 1");
  EXPECT_THAT(refusal(structure(0.1, 0, 0)), testing::StartsWith("prune: expected something to take away"));
  StructureOptions short_text = structure(0, 0.5, 0);
  short_text.text = "the cat";
  EXPECT_THAT(refusal(short_text), testing::StartsWith("calibration: expected a text of at least 64 tokens"));
  EXPECT_EQ(test::error_of([] { (void)prune_method_from_name("wand"); }),
            "method: expected one of magnitude, wanda, sparsegpt; found 'wand'; did you mean 'wanda'?");
  write(test::llama_config(), [](const std::string& name, Tensor& parameter) {
    if (name == "blocks.0.attn.q.weight") parameter.data<float>()[3] = NAN;
  });
  EXPECT_THAT(
      test::error_of([&] { prune_weights(source, output, {.method = PruneMethod::magnitude}); }),
      testing::HasSubstr("tensor 'blocks.0.attn.q.weight': expected finite numbers, found nan at element 3"));
  EXPECT_FALSE(std::filesystem::exists(output));
}

}  // namespace
}  // namespace qkv
