// EngineOptions::deterministic: a sequence's logits have the same bits alone, in any batch, and with any
// chunking of its prompt.
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "qkv/models/bundle.h"
#include "qkv/tensor/autograd.h"
#include "qkv/tensor/batch_invariance.h"
#include "tests/engine/engine_support.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

using test::bytes;
using test::greedy;

constexpr int64_t kTokens = 6;

// The log-probabilities of the whole vocabulary at every token of an answer: a function of all logits.
struct Trace {
  std::vector<int32_t> tokens;
  std::vector<float> values;
  bool operator==(const Trace&) const = default;
};

Trace trace_of(const Completion& answer) {
  Trace trace{answer.tokens, {}};
  for (const auto& top : answer.top_logprobs) {
    for (const TokenLogprob& entry : top) trace.values.push_back(entry.logprob);
  }
  return trace;
}

Request traced(std::vector<int32_t> prompt, int64_t vocabulary) {
  Request request = greedy(std::move(prompt), kTokens);
  request.ignore_eos = true;
  request.top_logprobs = static_cast<int>(vocabulary);
  return request;
}

std::vector<std::vector<int32_t>> prompts(int64_t vocabulary) {
  std::vector<std::vector<int32_t>> all;
  for (const char* text :
       {"The old mill by the river had not turned for years", "a", "It was a bright cold day in April",
        "one two three four", "Call me", "xyzzy", "to be or not", "In the beginning"}) {
    all.push_back(bytes(text));
    for (int32_t& id : all.back()) id = static_cast<int32_t>(id % vocabulary);
  }
  return all;
}

void expect_independent(const Model& model, EngineOptions options, const std::string& what) {
  SCOPED_TRACE(what);
  const int64_t vocabulary = std::min<int64_t>(model.info().vocabulary, 512);
  const auto all = prompts(vocabulary);
  options.deterministic = true;
  std::vector<Trace> alone;
  for (const auto& prompt : all) {
    Engine engine(model, nullptr, options);
    alone.push_back(trace_of(complete(engine, {traced(prompt, vocabulary)}).front()));
  }
  for (const size_t batch : {2, 5, 8}) {
    for (const int64_t chunk : {3, 512}) {
      std::vector<Request> requests;
      for (size_t i = 0; i < batch; ++i) requests.push_back(traced(all[i], vocabulary));
      options.prefill_chunk = chunk;
      Engine engine(model, nullptr, options);
      const auto together = complete(engine, requests);
      for (size_t i = 0; i < batch; ++i) {
        const Trace trace = trace_of(together[i]);
        EXPECT_EQ(trace.tokens, alone[i].tokens) << batch << " " << chunk << " " << i;
        EXPECT_EQ(
            std::memcmp(trace.values.data(), alone[i].values.data(), trace.values.size() * sizeof(float)), 0)
            << "batch " << batch << ", chunk " << chunk << ", sequence " << i;
      }
    }
  }
}

std::unique_ptr<Model> small(Json config, uint64_t seed = 3) {
  config["vocab_size"] = 257;
  config["max_position_embeddings"] = 96;
  auto model = make_model(config, "small model");
  initialize_weights(*model, seed, 0.3f);
  return model;
}

TEST(Deterministic, AFloatModelIsIndependentOfItsBatch) {
  const auto model = small({{"model_type", "llama"},
                            {"hidden_size", 36},  // rows that fill no vector
                            {"intermediate_size", 70},
                            {"num_hidden_layers", 2},
                            {"num_attention_heads", 6},
                            {"num_key_value_heads", 2}});
  expect_independent(*model, {}, "f32");
  expect_independent(*model, {.compute_type = DType::bf16}, "bf16");
}

TEST(Deterministic, WindowsExpertsAndLatentsToo) {
  expect_independent(*small({{"model_type", "mistral"},
                             {"hidden_size", 32},
                             {"intermediate_size", 64},
                             {"num_hidden_layers", 2},
                             {"num_attention_heads", 4},
                             {"num_key_value_heads", 2},
                             {"sliding_window", 16}}),
                     {}, "window");
  expect_independent(*small({{"model_type", "mixtral"},
                             {"hidden_size", 32},
                             {"intermediate_size", 48},
                             {"num_hidden_layers", 2},
                             {"num_attention_heads", 4},
                             {"num_key_value_heads", 2},
                             {"num_local_experts", 4},
                             {"num_experts_per_tok", 2}}),
                     {}, "experts");
  expect_independent(*small({{"model_type", "deepseek_v2"},
                             {"hidden_size", 32},
                             {"intermediate_size", 48},
                             {"num_hidden_layers", 2},
                             {"num_attention_heads", 4},
                             {"num_key_value_heads", 4},
                             {"kv_lora_rank", 16},
                             {"q_lora_rank", nullptr},
                             {"qk_nope_head_dim", 16},
                             {"qk_rope_head_dim", 8},
                             {"v_head_dim", 16},
                             {"n_routed_experts", 4},
                             {"num_experts_per_tok", 2},
                             {"moe_intermediate_size", 24},
                             {"n_shared_experts", 1},
                             {"first_k_dense_replace", 1}}),
                     {}, "latents");
}

TEST(Deterministic, RecurrentModelsToo) {
  expect_independent(
      *small({{"model_type", "mamba"}, {"hidden_size", 32}, {"state_size", 8}, {"num_hidden_layers", 2}}), {},
      "mamba");
  expect_independent(*small({{"model_type", "mamba2"},
                             {"hidden_size", 32},
                             {"state_size", 16},
                             {"num_heads", 4},
                             {"head_dim", 16},
                             {"n_groups", 1},
                             {"num_hidden_layers", 2}}),
                     {}, "mamba2");
}

TEST(Deterministic, DraftsKeepTheBits) {
  const auto model = test::small_llama();
  const Request request = traced(bytes("the cat the cat the"), 257);
  Engine plain(*model, nullptr, {.deterministic = true});
  const Trace expected = trace_of(complete(plain, {request}).front());
  Engine engine(*model, nullptr,
                {.drafter = std::make_shared<ModelDrafter>(*model, DType::f32, 0.0f), .deterministic = true});
  EXPECT_EQ(trace_of(complete(engine, {request}).front()), expected);
  EXPECT_GT(engine.stats().drafted_tokens, 0);
}

class QuantizedModel : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Types, QuantizedModel, testing::Values("Q4_0", "Q4_K_M", "Q6_K", "Q8_0", "F16"));

TEST_P(QuantizedModel, IsIndependentOfItsBatch) {
  const std::string path = test::shared(std::string("data/models/stories3M-") + GetParam() + ".gguf");
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "no " << path;
  const Bundle bundle = load_bundle(path);
  const std::string type = GetParam();
  if (type != "F16")
    expect_independent(*bundle.model, {.activations = Activations::int8}, "rounded activations");
  if (type == "F16" || type == "Q4_K_M")
    expect_independent(*bundle.model, {.activations = Activations::exact}, "exact activations");
}

}  // namespace
}  // namespace qkv
