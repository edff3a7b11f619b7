#include "qkv/compress/layer_walk.h"

#include "qkv/compress/scale_migration.h"
#include "tests/compress/compress_support.h"

namespace qkv {
namespace {

const std::vector<int32_t> kTokens = {3, 17, 5, 9, 130, 2, 8, 1, 39, 44, 71, 5};

Json gpt2_config() {
  return {{"architectures", {"GPT2LMHeadModel"}},
          {"model_type", "gpt2"},
          {"vocab_size", 272},
          {"n_embd", 64},
          {"n_layer", 2},
          {"n_head", 4},
          {"n_positions", 64}};
}
Json mixtral_config() {
  return test::llama_config({{"architectures", {"MixtralForCausalLM"}},
                             {"model_type", "mixtral"},
                             {"num_local_experts", 4},
                             {"num_experts_per_tok", 2}});
}
Json gemma_config() {
  return test::llama_config({{"architectures", {"GemmaForCausalLM"}},
                             {"model_type", "gemma"},
                             {"head_dim", 16},
                             {"hidden_act", "gelu_pytorch_tanh"},
                             {"tie_word_embeddings", true}});
}

TEST(Calibration, SequencesAreSpreadOverTheText) {
  const auto tokenizer = test::small_tokenizer();
  const auto model = test::random_model(test::llama_config());
  const std::string text = test::words(2000);
  const TokenSequences sequences =
      calibration_sequences(model->info(), *tokenizer, text, {.context = 32, .sequences = 5});
  ASSERT_EQ(sequences.size(), 5u);
  const std::vector<int32_t> all = tokenizer->encode(text);
  const int64_t there = static_cast<int64_t>(all.size()) / 32;
  for (size_t i = 0; i < 5; ++i) {
    ASSERT_EQ(sequences[i].size(), 32u);
    EXPECT_EQ(sequences[i].back(),
              all[static_cast<size_t>((static_cast<int64_t>(i) * there / 5 + 1) * 32 - 1)]);
  }
  // Cut to the model's positions; refused when there is not one sequence.
  EXPECT_EQ(calibration_sequences(model->info(), *tokenizer, text, {.context = 4096})[0].size(), 64u);
  EXPECT_THAT(
      test::error_of([&] { (void)calibration_sequences(model->info(), *tokenizer, "the cat", {}); }),
      testing::StartsWith("calibration: expected a text of at least 64 tokens (one sequence), found "));
}

TEST(LayerWalk, SeesWhatEachLayerReadsOnce) {
  auto model = test::random_model(test::llama_config());
  auto& decoder = dynamic_cast<Decoder&>(*model);
  for (const bool sequential : {false, true}) {
    LayerWalk walk(decoder, {kTokens, {1, 2, 3}, kTokens}, {.sequential = sequential, .batch_tokens = 15});
    Tensor last;
    walk.observe_layers([&](const Tensor&, const Tensor& after) { last = after; });
    int64_t calls = 0;
    while (!walk.is_done()) {
      std::vector<std::vector<std::string>> names;
      walk.step([&](std::vector<SharedInput>& inputs) {
        ++calls;
        for (const auto& input : inputs) {
          names.push_back(input.names);
          EXPECT_EQ(input.statistics.rows(), 27);
          EXPECT_EQ(input.statistics.columns(), input.linears[0]->weight().shape()[1]);
          for (int64_t c = 0; c < input.statistics.columns(); ++c) {
            const double square = input.statistics.squares()[static_cast<size_t>(c)];
            EXPECT_NEAR(input.statistics.products().data<float>()[c * input.statistics.columns() + c], square,
                        1e-5 * square);
          }
        }
      });
      const std::string block = fmt::format("blocks.{}.", walk.layer() - 1);
      EXPECT_EQ(names,
                (std::vector<std::vector<std::string>>{{block + "attn.q", block + "attn.k", block + "attn.v"},
                                                       {block + "attn.out"},
                                                       {block + "mlp.gate", block + "mlp.up"},
                                                       {block + "mlp.down"}}));
    }
    EXPECT_EQ(calls, sequential ? 12 : 3);
    // The last batch alone: what left the last layer is what the model gives before its norm.
    const NoGrad off;
    const Pass pass = Pass::whole({12});
    const Tensor whole = model->forward(kTokens, pass), pieces = decoder.finish(last, pass);
    EXPECT_LT(test::largest_difference(whole.to_floats(), pieces.to_floats()), 1e-5);
  }
}

TEST(LayerWalk, ReachesExpertsAndRouters) {
  auto model = test::random_model(mixtral_config());
  LayerWalk walk(dynamic_cast<Decoder&>(*model), {kTokens}, {.sequential = true});
  std::map<std::string, int64_t> rows;
  walk.step([&](std::vector<SharedInput>& inputs) {
    for (const auto& input : inputs)
      for (const auto& name : input.names) rows[name] += input.statistics.rows();
  });
  EXPECT_EQ(rows.at("blocks.0.mlp.router"), 12);
  int64_t experts = 0;
  for (const auto& [name, count] : rows)
    experts += name.find("experts") != std::string::npos && name.ends_with("down") ? count : 0;
  EXPECT_EQ(experts, 24);  // two of four for every token
  EXPECT_EQ(rows.size(), 4u + 1 + 4 * 3);
}

// Factors of 1/4 to 4 through every input whose maker can take them: the same logits but for rounding. Every
// product of about 100 terms is made of other numbers, over 3 layers.
TEST(Migration, ComputesTheSame) {
  struct Case {
    const char* name;
    Json config;
    std::map<InputMaker, int> makers;  // per layer
  };
  const std::vector<Case> cases = {
      {"grouped heads",
       test::llama_config(),
       {{InputMaker::norm, 2}, {InputMaker::up, 1}, {InputMaker::none, 1}}},
      {"own heads",
       test::llama_config({{"num_key_value_heads", 4}, {"attention_bias", true}, {"mlp_bias", true}}),
       {{InputMaker::norm, 2}, {InputMaker::up, 1}, {InputMaker::values, 1}}},
      {"gains minus one",
       gemma_config(),
       {{InputMaker::norm, 2}, {InputMaker::up, 1}, {InputMaker::none, 1}}},
      {"layer norms", gpt2_config(), {{InputMaker::norm, 2}, {InputMaker::values, 1}, {InputMaker::none, 1}}},
  };
  for (const auto& [name, config, makers] : cases) {
    auto model = test::random_model(config);
    auto& decoder = dynamic_cast<Decoder&>(*model);
    const std::vector<float> before = test::logits_of(*model, kTokens);
    LayerWalk walk(decoder, {kTokens}, {});
    Rng rng(9);
    walk.step([&](std::vector<SharedInput>& inputs) {
      std::map<InputMaker, int> found;
      for (auto& input : inputs) {
        ++found[maker_of(decoder, input)];
        std::vector<float> factors;
        for (int64_t c = 0; c < input.statistics.columns(); ++c)
          factors.push_back(std::exp2(4 * rng.uniform() - 2));
        const double square = input.statistics.squares()[1];
        EXPECT_EQ(migrate(decoder, input, factors), maker_of(decoder, input) != InputMaker::none);
        const double expected =
            maker_of(decoder, input) == InputMaker::none ? square : square / factors[1] / factors[1];
        EXPECT_NEAR(input.statistics.squares()[1], expected, 1e-5 * expected);
      }
      EXPECT_EQ(found, makers) << name;
    });
    double largest = 0;
    for (const float logit : before) largest = std::max(largest, std::abs(double{logit}));
    EXPECT_LT(test::largest_difference(test::logits_of(*model, kTokens), before), 2e-5 * largest) << name;
  }
}

}  // namespace
}  // namespace qkv
