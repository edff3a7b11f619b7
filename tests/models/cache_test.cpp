// Models on caches of every kind: sizes by formula for every architecture, low-bit and rotated keys, forks,
// full pools, and attention sinks.
#include <gtest/gtest.h>

#include <cmath>

#include "qkv/core/error.h"
#include "qkv/core/rng.h"
#include "qkv/models/model.h"
#include "qkv/models/registry.h"
#include "qkv/nn/kv_state.h"
#include "qkv/tensor/autograd.h"
#include "tests/models/small_configs.h"

namespace qkv {
namespace {

std::vector<int32_t> some_tokens(int64_t n, uint64_t seed = 3) {
  Rng rng(seed);
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < n; ++i) tokens.push_back(static_cast<int32_t>(rng.below(50)));
  return tokens;
}

double largest_difference(const Tensor& a, const Tensor& b) {
  const std::vector<float> x = a.to_floats(), y = b.to_floats();
  double largest = x.size() == y.size() ? 0 : INFINITY;
  for (size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
    const double difference = std::abs(double{x[i]} - double{y[i]});
    largest = std::isnan(difference) ? INFINITY : std::max(largest, difference);
  }
  return largest;
}

std::unique_ptr<Model> filled(const Json& config) {
  std::unique_ptr<Model> model = make_model(config, "config.json");
  uint64_t seed = 100;
  model->visit("", [&](const std::string&, Tensor& parameter) {
    const bool matrix = parameter.shape().rank() == 2;
    const float deviation = matrix ? 1.2f / std::sqrt(static_cast<float>(parameter.cols())) : 0.3f;
    Rng rng(seed++);
    parameter = Tensor::empty(parameter.shape());
    for (int64_t i = 0; i < parameter.elements(); ++i)
      parameter.data<float>()[i] = (matrix ? 0.0f : 0.8f) + deviation * rng.normal();
  });
  return model;
}

std::unique_ptr<Model> llama(int layers, const Json& changes = Json::object()) {
  Json config = {{"model_type", "llama"},
                 {"architectures", {"LlamaForCausalLM"}},
                 {"vocab_size", 50},
                 {"hidden_size", 32},
                 {"intermediate_size", 40},
                 {"num_hidden_layers", layers},
                 {"num_attention_heads", 4},
                 {"num_key_value_heads", 2},
                 {"max_position_embeddings", 256}};
  return filled(test::with(config, changes));
}

// Hidden states (n, C) of tokens that a state takes in pieces.
Tensor in_pieces(const Model& model, SequenceState& state, const std::vector<int32_t>& tokens,
                 int64_t piece) {
  std::vector<Tensor> parts;
  const auto n = static_cast<int64_t>(tokens.size());
  Tensor all;
  for (int64_t t = 0; t < n; t += piece) {
    const int64_t end = std::min(n, t + piece);
    const Tensor part = model.forward({tokens.begin() + t, tokens.begin() + end}, Pass::next(state, end - t));
    if (!all.defined()) all = Tensor::empty({n, part.cols()});
    all.row_view(t, end).copy_from(part);
  }
  return all;
}

class EveryArchitecturesCache : public testing::TestWithParam<test::SmallConfig> {};

TEST_P(EveryArchitecturesCache, IsAsLargeAsTheFormulaSays) {
  const NoGrad off;
  const auto model = filled(GetParam().config);
  if (!model->info().causal) GTEST_SKIP() << "an encoder";
  for (const DType type : {DType::f32, DType::f16, DType::q8_0, DType::q4_0}) {
    CacheOptions options;
    options.k_type = options.v_type = type;
    options.page_tokens = 16;
    SequenceState state = model->make_state(options);
    uint64_t most = 0;
    for (const int32_t token : some_tokens(40)) {
      model->forward({token}, Pass::next(state, 1));
      most = std::max(most, state.bytes());
    }
    EXPECT_EQ(most, model->state_bytes(options, 40)) << name(type);
    const SequenceState fork = state.fork(state.length);
    EXPECT_EQ(fork.bytes(), state.bytes());
  }
}

TEST_P(EveryArchitecturesCache, OfRotatedKeysGivesTheSame) {
  const NoGrad off;
  const auto model = filled(GetParam().config);
  if (!model->info().causal) GTEST_SKIP() << "an encoder";
  const std::vector<int32_t> tokens = some_tokens(16);
  CacheOptions options;
  options.rotate_k = true;
  SequenceState state;
  try {
    state = model->make_state(options);
  } catch (const Error&) {
    GTEST_SKIP() << "heads that no Hadamard matrix fits";
  }
  const Tensor whole = model->forward(tokens, Pass::whole({16}));
  EXPECT_LT(largest_difference(in_pieces(*model, state, tokens, 5), whole), 1e-4);
}

INSTANTIATE_TEST_SUITE_P(Small, EveryArchitecturesCache, testing::ValuesIn(test::small_configs()),
                         [](const auto& info) { return info.param.name; });

TEST(ModelCache, HalfPrecisionIsCloseAndEightBitsNearlySo) {
  const NoGrad off;
  const auto model = llama(2);
  const std::vector<int32_t> tokens = some_tokens(60);
  const Tensor whole = model->forward(tokens, Pass::whole({60}));
  // Normed states are of order one; a key is rounded by 2^-11 or 1/254 of its largest value, twice per layer.
  for (const auto& [type, most] :
       {std::pair{DType::f32, 1e-4}, std::pair{DType::f16, 1e-2}, std::pair{DType::q8_0, 0.1}}) {
    CacheOptions options;
    options.k_type = options.v_type = type;
    for (const int64_t piece : {1, 7, 60}) {
      SequenceState state = model->make_state(options);
      EXPECT_LT(largest_difference(in_pieces(*model, state, tokens, piece), whole), most) << name(type);
    }
  }
}

TEST(ModelCache, ForksGoOnAsIfTheyHadReadItAll) {
  const NoGrad off;
  const auto model = llama(2);
  CacheOptions options;
  options.pool = PagePool::make();
  options.page_tokens = 16;
  const std::vector<int32_t> prefix = some_tokens(40), one = some_tokens(30, 8), other = some_tokens(30, 9);
  SequenceState state = model->make_state(options);
  in_pieces(*model, state, prefix, 40);
  const uint64_t shared = options.pool->bytes();
  SequenceState fork = state.fork(37);
  EXPECT_EQ(options.pool->bytes(), shared);
  const auto alone = [&](int64_t kept, const std::vector<int32_t>& rest) {
    SequenceState own = model->make_state();
    in_pieces(*model, own, {prefix.begin(), prefix.begin() + kept}, kept);
    return in_pieces(*model, own, rest, 1);
  };
  const Tensor first = in_pieces(*model, state, one, 1), second = in_pieces(*model, fork, other, 1);
  EXPECT_LT(largest_difference(first, alone(40, one)), 1e-4);
  EXPECT_LT(largest_difference(second, alone(37, other)), 1e-4);
  // Two full pages of 40 tokens are shared, in both layers.
  EXPECT_EQ(state.bytes() + fork.bytes() - options.pool->bytes(), model->state_bytes(options, 32));
}

TEST(ModelCache, AFullPoolEndsAPassBeforeItBegins) {
  const NoGrad off;
  const auto model = llama(2);
  CacheOptions options;
  options.page_tokens = 16;
  options.pool = PagePool::make(model->state_bytes(options, 32) + model->state_bytes(options, 16));
  const std::vector<int32_t> tokens = some_tokens(48);
  SequenceState first = model->make_state(options), second = model->make_state(options);
  const Tensor expected = model->forward(tokens, Pass::whole({48}));
  in_pieces(*model, first, {tokens.begin(), tokens.begin() + 16}, 16);
  in_pieces(*model, second, {tokens.begin(), tokens.begin() + 16}, 16);
  Pass both;
  both.states = {&first, &second};
  both.sequences.offsets = {0, 16, 32};
  std::vector<int32_t> next;
  for (int i = 0; i < 2; ++i) {
    for (int32_t t = 16; t < 32; ++t) {
      both.positions.push_back(t);
      next.push_back(tokens[static_cast<size_t>(t)]);
    }
  }
  EXPECT_THROW(model->forward(next, both), CacheFull);
  EXPECT_EQ(first.length, 16);
  second = SequenceState();  // whoever catches it makes room
  const Tensor rest = in_pieces(*model, first, {tokens.begin() + 16, tokens.end()}, 16);
  EXPECT_LT(largest_difference(rest, expected.row_view(16, 48)), 1e-4);
}

// With one layer, what a token sees through sinks and window is what it would see in a text of the first and
// the latest tokens alone, read from the beginning: positions are those within the cache.
TEST(ModelCache, SinksAndWindowAreAShorterText) {
  const NoGrad off;
  constexpr int64_t sinks = 3, window = 10, n = 60;
  for (const char* scaling : {"none", "llama3"}) {
    Json changes = Json::object();
    if (std::string(scaling) == "llama3") {
      changes = {{"rope_scaling",
                  {{"rope_type", "llama3"},
                   {"factor", 8.0},
                   {"low_freq_factor", 1.0},
                   {"high_freq_factor", 4.0},
                   {"original_max_position_embeddings", 32}}}};
    }
    const auto model = llama(1, changes);
    const std::vector<int32_t> tokens = some_tokens(n);
    CacheOptions options;
    options.window = window;
    options.sinks = sinks;
    options.page_tokens = 16;
    for (const int64_t piece : {1, 5, 60}) {
      SequenceState state = model->make_state(options);
      const Tensor found = in_pieces(*model, state, tokens, piece);
      for (const int64_t t : {2, 12, 13, 14, 30, 59}) {
        std::vector<int32_t> text;
        for (int64_t i = 0; i <= t; ++i) {
          if (i < sinks || i > t - window) text.push_back(tokens[static_cast<size_t>(i)]);
        }
        const auto length = static_cast<int64_t>(text.size());
        const Tensor expected = model->forward(text, Pass::whole({length}));
        EXPECT_LT(largest_difference(found.row_view(t, t + 1), expected.row_view(length - 1, length)), 1e-4)
            << scaling << ", pieces of " << piece << ", token " << t;
      }
      EXPECT_LE(state.bytes(), model->state_bytes(options, n, piece));
      if (piece == 1) {
        EXPECT_LT(state.bytes(), model->state_bytes({.page_tokens = 16}, n));
      }
    }
  }
}

TEST(ModelCache, SinksNeedPositionsThatTurn) {
  CacheOptions options;
  options.window = 10;
  options.sinks = 2;
  for (const auto& config : test::small_configs()) {
    if (config.name == "gpt2" || config.name == "bloom" || config.name == "deepseek_v2") {
      EXPECT_THROW(filled(config.config)->make_state(options), Error) << config.name;
    }
  }
}

}  // namespace
}  // namespace qkv
