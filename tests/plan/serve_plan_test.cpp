// The planner against what is planned: caches and passes as the allocator counts them.
#include "qkv/plan/serve_plan.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "qkv/models/registry.h"
#include "qkv/models/weights.h"
#include "qkv/tensor/allocator.h"
#include "qkv/tensor/autograd.h"

namespace qkv {
namespace {

Json llama(int64_t hidden, int64_t inner, int64_t layers) {
  return {{"model_type", "llama"},       {"vocab_size", 2048},
          {"hidden_size", hidden},       {"intermediate_size", inner},
          {"num_hidden_layers", layers}, {"num_attention_heads", 8},
          {"num_key_value_heads", 2},    {"max_position_embeddings", 4096}};
}

std::unique_ptr<Model> make(const Json& config) {
  auto model = make_model(config, "planned model");
  initialize_weights(*model, 1, 0.02f);
  return model;
}

void pass(const Model& model, SequenceState& state, int64_t tokens) {
  const NoGrad off;
  Pass next = Pass::next(state, tokens);
  const Tensor hidden = model.forward(std::vector<int32_t>(static_cast<size_t>(tokens), 3), next);
  model.logits(hidden.row_view(tokens - 1, tokens));
}

TEST(ServePlan, TheCacheIsWhatStatesTake) {
  const std::vector<Json> configs = {llama(64, 128, 3),
                                     {{"model_type", "mamba"},
                                      {"vocab_size", 300},
                                      {"hidden_size", 32},
                                      {"state_size", 8},
                                      {"num_hidden_layers", 2}}};
  for (const Json& config : configs) {
    const auto model = make(config);
    for (const DType type : {DType::f32, DType::f16, DType::q8_0}) {
      ServeRequest request;
      request.context = 300;
      request.parallel = 3;
      request.cache.k_type = request.cache.v_type = type;
      std::vector<SequenceState> states;
      uint64_t bytes = 0;
      for (int i = 0; i < 3; ++i) {
        states.push_back(model->make_state(request.cache));
        pass(*model, states.back(), 300);
        bytes += states.back().bytes();
      }
      EXPECT_EQ(plan_serving(*model, request).cache, bytes);
    }
  }
}

TEST(ServePlan, APassTakesWhatIsPlanned) {
  for (const auto& [hidden, inner] : {std::pair{256, 768}, std::pair{512, 1024}}) {
    const auto model = make(llama(hidden, inner, 3));
    release_cached_memory();
    SequenceState state = model->make_state();
    const MemoryUse before = memory_use();
    reset_peak();
    pass(*model, state, 512);
    pass(*model, state, 512);
    const MemoryUse after = memory_use();
    const auto measured = static_cast<double>(after.current - before.current + after.cached) -
                          static_cast<double>(state.bytes());
    const auto planned = static_cast<double>(pass_bytes(*model, 512, 1));
    EXPECT_NEAR(planned / measured, 1, 0.25) << planned << " for " << measured;
    EXPECT_GE(planned, 0.9 * static_cast<double>(after.peak - before.current - state.bytes()));
  }
}

TEST(ServePlan, FormulasAreWrittenOut) {
  const auto model = make(llama(64, 128, 3));
  EXPECT_EQ(cache_formula(*model, {}),
            "2 x 3 layers x 2 heads x 8 dimensions x 4 bytes = 384 bytes per token");
  CacheOptions mixed;
  mixed.k_type = DType::bf16;
  EXPECT_EQ(cache_formula(*model, mixed),
            "3 layers x 2 heads x 8 dimensions x (2 + 4 bytes) = 288 bytes per token");
}

TEST(ServePlan, TheLongestContextThatFits) {
  const auto model = make(llama(64, 128, 3));
  ServeRequest request;
  request.parallel = 2;
  request.context = 1000;
  const uint64_t enough = plan_serving(*model, request).total();
  const int64_t fits = fitting_context(*model, request, enough);
  EXPECT_GE(fits, 1000);
  EXPECT_LT(fits, 1000 + 32);  // a page
  EXPECT_EQ(fitting_context(*model, request, 1000), 0);
  EXPECT_EQ(fitting_context(*model, request, uint64_t{1} << 40), 4096);
}

TEST(ServePlan, SpeedIsWhatTheBandwidthAllows) {
  const auto model = make(llama(64, 128, 3));
  ServeRequest request;
  request.context = 1024;
  request.parallel = 8;
  const ServePlan plan = plan_serving(*model, request);
  const double alone = plan.tokens_per_second(1e9, 0, 1);
  EXPECT_DOUBLE_EQ(alone, 1e9 / static_cast<double>(plan.weights_read));
  EXPECT_DOUBLE_EQ(plan.tokens_per_second(1e9, 0, 8), 8 * alone);
  EXPECT_LT(plan.tokens_per_second(1e9, 1024, 8), 8 * alone);
}

}  // namespace
}  // namespace qkv
