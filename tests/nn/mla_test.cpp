// Latent attention: the absorbed form, the expanded form and whole sequences are the same numbers, and the
// cache holds nothing but latents and the shared key part.
#include <gtest/gtest.h>

#include "qkv/nn/mla.h"
#include "qkv/nn/rope.h"
#include "tests/tensor/tensor_testing.h"

namespace qkv::test {
namespace {

class LatentAttention : public ::testing::TestWithParam<DType> {
 protected:
  static constexpr int64_t kTokens = 40;

  LatentAttention() : mla_(config()), rope_(angles()) {
    uint64_t seed = 1;
    mla_.visit("", [&](const std::string& name, Tensor& parameter) {
      const double scale =
          parameter.shape().rank() == 2 ? 1 / std::sqrt(static_cast<double>(parameter.cols())) : 1;
      parameter = random_tensor(parameter.shape(), seed++, DType::f32, scale);
      // Products of the latent work on any stored type.
      if (name == "k_b.weight" || name == "v_b.weight") parameter = parameter.to(GetParam());
    });
    x_ = random_tensor({kTokens, 48}, 70);
  }
  static MlaConfig config() {
    MlaConfig config;
    config.channels = 48;
    config.n_heads = 3;
    config.q_rank = 20;
    config.kv_rank = 16;
    config.nope_dim = 10;
    config.rope_dim = 6;
    config.v_dim = 12;
    return config;
  }
  static RopeConfig angles() {
    RopeConfig rope;
    rope.head_dim = rope.rotary_dim = 6;
    rope.interleaved = true;
    return rope;
  }
  Tensor run(int64_t begin, int64_t end, SequenceState& state) {
    const Pass pass = Pass::next(state, end - begin);
    const ops::RopeTable table = rope_.table(pass.positions, pass.sequences);
    const Tensor y = mla_.forward(x_.row_view(begin, end), pass, &table, 0);
    state.length += end - begin;
    return y;
  }

  Mla mla_;
  Rope rope_;
  Tensor x_;
};

TEST_P(LatentAttention, EveryWayOfReadingAPromptGivesTheSame) {
  const NoGrad off;
  const Pass whole = Pass::whole({kTokens});
  const ops::RopeTable table = rope_.table(whole.positions, whole.sequences);
  const Doubles expected = values_of(mla_.forward(x_, whole, &table, 0));
  // Up to a few tokens at a time attend to latents, longer pieces expand them.
  for (const int64_t piece : {int64_t{1}, int64_t{3}, int64_t{17}, kTokens}) {
    SequenceState state;
    state.layers.push_back(mla_.make_state({}));
    Doubles found;
    for (int64_t t = 0; t < kTokens; t += piece) {
      const Doubles part = values_of(run(t, std::min(kTokens, t + piece), state));
      found.insert(found.end(), part.begin(), part.end());
    }
    EXPECT_TRUE(close(found, expected, 2e-5)) << "pieces of " << piece;
  }
}

TEST_P(LatentAttention, TheCacheHoldsLatentsAndTheSharedKey) {
  const NoGrad off;
  SequenceState state;
  state.layers.push_back(mla_.make_state({}));
  run(0, kTokens, state);
  EXPECT_EQ(state.bytes(), 64u * (16 + 6) * sizeof(float));  // two pages of 32
  state.truncate(5);
  EXPECT_EQ(state.length, 5);
  run(5, 6, state);
}

INSTANTIATE_TEST_SUITE_P(Types, LatentAttention, ::testing::Values(DType::f32, DType::bf16),
                         [](const auto& info) { return std::string(name(info.param)); });

}  // namespace
}  // namespace qkv::test
