// What attention layers remember: pages that are shared until one is written, windows that keep only what
// later tokens can see, and bytes that are counted exactly.
#include <gtest/gtest.h>

#include "qkv/core/error.h"
#include "qkv/nn/kv_state.h"
#include "qkv/nn/ssm.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

constexpr int64_t kPage = 16;
constexpr uint64_t kPageBytes = kPage * 5 * 4;  // rows of 3 and 2 floats

CacheOptions options(std::shared_ptr<PagePool> pool = nullptr) {
  CacheOptions made;
  made.page_tokens = kPage;
  made.pool = std::move(pool);
  return made;
}
KvState make(int64_t window = 0, std::shared_ptr<PagePool> pool = nullptr) {
  return {CacheLayout{1, 3, 2}, options(std::move(pool)), window};
}

// Rows whose first element is the token's number.
Tensor rows(int64_t first, int64_t n, int64_t width) {
  Tensor t = Tensor::zeros({n, width});
  for (int64_t i = 0; i < n; ++i) t.data<float>()[i * width] = static_cast<float>(first + i);
  return t;
}
void append(KvState& state, int64_t first, int64_t n) {
  state.append(rows(first, n, 3), rows(first, n, 2));
}

std::vector<float> tokens_of(const Tensor& held) {
  std::vector<float> tokens;
  for (int64_t i = 0; i < held.rows(); ++i) tokens.push_back(held.data<float>()[i * held.cols()]);
  return tokens;
}

TEST(KvState, GrowsByPagesAndShortensAcrossThem) {
  KvState state = make();
  for (int64_t t = 0; t < 100; ++t) append(state, t, 1);
  EXPECT_EQ(state.length(), 100);
  EXPECT_EQ(tokens_of(state.keys()), tokens_of(rows(0, 100, 3)));
  EXPECT_EQ(tokens_of(state.values()), tokens_of(rows(0, 100, 2)));
  EXPECT_EQ(state.bytes(), 7 * kPageBytes);
  state.truncate(17);
  EXPECT_EQ(state.bytes(), 2 * kPageBytes);
  append(state, 17, 40);
  EXPECT_EQ(tokens_of(state.keys()), tokens_of(rows(0, 57, 3)));
  state.truncate(16);
  EXPECT_EQ(state.bytes(), kPageBytes);
  append(state, 16, 1);
  EXPECT_EQ(tokens_of(state.values()), tokens_of(rows(0, 17, 2)));
  EXPECT_EQ(test::error_of([&] { state.truncate(18); }), "kv cache: cannot shorten 17 tokens to 18");
}

TEST(KvState, AWindowKeepsWhatLaterTokensSee) {
  constexpr int64_t window = 50;
  const auto pool = PagePool::make();
  KvState state = make(window, pool);
  uint64_t most = 0;
  for (int64_t t = 0; t < 300; ++t) {
    append(state, t, 1);
    const int64_t first = state.first_held();
    ASSERT_LE(first, std::max<int64_t>(0, t - window + 1)) << t;
    ASSERT_EQ(tokens_of(state.keys(first)), tokens_of(rows(first, t + 1 - first, 3)));
    ASSERT_EQ(tokens_of(state.values(first)), tokens_of(rows(first, t + 1 - first, 2)));
    state.trim();
    most = std::max(most, state.bytes());
    ASSERT_EQ(pool->bytes(), state.bytes());
  }
  EXPECT_EQ(most, KvState::bytes_of({1, 3, 2}, options(), window, 300));
  EXPECT_EQ(most, 5 * kPageBytes);
}

TEST(KvState, ALongPromptIsGivenBackBeyondTheWindow) {
  KvState state = make(40);
  append(state, 0, 500);
  EXPECT_EQ(state.first_held(), 0);  // its own tokens need all of it
  EXPECT_LE(state.bytes(), KvState::bytes_of({1, 3, 2}, options(), 40, 500, 500));
  state.trim();
  EXPECT_EQ(state.first_held(), 448);
  EXPECT_EQ(state.bytes(), 4 * kPageBytes);
  append(state, 500, 1);
  EXPECT_EQ(tokens_of(state.keys(461)), tokens_of(rows(461, 40, 3)));
  EXPECT_THROW(state.keys(0), Error);
}

TEST(KvState, AWindowShortensWithinWhatItHolds) {
  KvState state = make(4);
  append(state, 0, 60);
  state.truncate(10);  // nothing is dropped yet
  for (int64_t t = 10; t < 300; ++t) append(state, t, 1);
  const int64_t oldest = state.first_held();
  ASSERT_GT(oldest, 0);
  state.truncate(oldest + 3);  // the next token sees the three before it
  EXPECT_EQ(tokens_of(state.keys(oldest)), tokens_of(rows(oldest, 3, 3)));
  EXPECT_EQ(test::error_of([&] { state.truncate(oldest + 2); }),
            "kv cache: cannot shorten to " + std::to_string(oldest + 2) +
                " tokens: a window of 4 keeps only those from " + std::to_string(oldest) + " on");
}

TEST(KvState, SinksStayWhenTheWindowMoves) {
  CacheOptions streaming = options();
  streaming.window = 20;
  streaming.sinks = 4;
  KvState state(CacheLayout{1, 3, 2}, streaming);
  for (int64_t t = 0; t < 300; ++t) append(state, t, 1);
  EXPECT_EQ(state.window(), 20);
  const ops::CachedSequence view = state.view(0, 1);
  EXPECT_EQ(view.sinks, 4);
  EXPECT_NE(view.pages[0], nullptr);
  EXPECT_EQ(view.pages[5], nullptr);
  EXPECT_EQ(reinterpret_cast<const float*>(view.pages[0])[3 * 3], 3.0f);  // the fourth key
  EXPECT_LE(state.bytes(), KvState::bytes_of({1, 3, 2}, streaming, 0, 300));
  // A layer that sees less has no use for them.
  EXPECT_EQ(KvState(CacheLayout{1, 3, 2}, streaming, 10).view(0, 0).sinks, 0);
}

TEST(KvState, ValuesCanBePartOfTheKeys) {
  KvState state(CacheLayout{1, 6, 0}, options());
  state.append(rows(0, 3, 6));
  EXPECT_EQ(state.keys().shape(), (Shape{3, 6}));
  EXPECT_EQ(state.bytes(), kPage * 6u * 4u);
  EXPECT_THROW(state.append(rows(3, 1, 6), rows(3, 1, 2)), Error);
}

TEST(KvState, ForksShareFullPagesAndCopyWhatTheyWrite) {
  const auto pool = PagePool::make();
  auto state = std::make_unique<KvState>(make(0, pool));
  append(*state, 0, 40);
  EXPECT_EQ(pool->bytes(), 3 * kPageBytes);
  const auto fork = state->fork(35);
  auto& other = dynamic_cast<KvState&>(*fork);
  EXPECT_EQ(other.length(), 35);
  EXPECT_EQ(pool->bytes(), 3 * kPageBytes);  // nothing is copied before it is written
  append(other, 1000, 2);
  EXPECT_EQ(pool->bytes(), 4 * kPageBytes);
  append(*state, 40, 1);  // the only owner of its last page now
  EXPECT_EQ(pool->bytes(), 4 * kPageBytes);
  std::vector<float> expected = tokens_of(rows(0, 35, 3));
  expected.insert(expected.end(), {1000, 1001});
  EXPECT_EQ(tokens_of(other.keys()), expected);
  EXPECT_EQ(tokens_of(state->keys()), tokens_of(rows(0, 41, 3)));
  // Shortened into a shared page and written there, either way round.
  const auto third = state->fork(20);
  state->truncate(18);
  append(*state, 500, 1);
  auto& kept = dynamic_cast<KvState&>(*third);
  EXPECT_EQ(tokens_of(kept.keys()), tokens_of(rows(0, 20, 3)));
  append(kept, 20, 1);
  EXPECT_EQ(tokens_of(state->keys()).back(), 500);
  EXPECT_EQ(tokens_of(kept.keys()), tokens_of(rows(0, 21, 3)));
}

TEST(KvState, NoPageOutlivesItsStates) {
  const auto pool = PagePool::make();
  {
    KvState state = make(0, pool);
    append(state, 0, 100);
    std::vector<std::unique_ptr<LayerState>> forks;
    for (int64_t i = 0; i < 20; ++i) forks.push_back(state.fork(100 - 4 * i));
    for (size_t i = 0; i < forks.size(); i += 2) {
      append(dynamic_cast<KvState&>(*forks[i]), 7, 30);
      forks[i]->truncate(3);
      forks.push_back(forks[i]->fork(2));
    }
    EXPECT_GT(pool->pages(), 0);
  }
  EXPECT_EQ(pool->pages(), 0);
  EXPECT_EQ(pool->bytes(), 0u);
  EXPECT_GE(pool->peak_bytes(), 7 * kPageBytes);
}

TEST(SequenceState, AFullPoolChangesNothing) {
  const auto pool = PagePool::make(5 * kPageBytes);
  SequenceState state;
  for (int i = 0; i < 2; ++i) state.layers.push_back(std::make_unique<KvState>(make(0, pool)));
  for (auto& layer : state.layers) append(dynamic_cast<KvState&>(*layer), 0, 20);
  state.length = 20;
  EXPECT_EQ(pool->bytes(), 4 * kPageBytes);
  state.reserve(12);  // fits the pages there are
  EXPECT_EQ(pool->bytes(), 4 * kPageBytes);
  EXPECT_THROW(state.reserve(13), CacheFull);  // one page for each layer: the second fails
  EXPECT_EQ(pool->bytes(), 4 * kPageBytes);
  EXPECT_EQ(state.bytes(), 4 * kPageBytes);
  for (auto& layer : state.layers) EXPECT_EQ(dynamic_cast<KvState&>(*layer).length(), 20);
  {  // copying a shared page is part of the room
    const SequenceState other = state.fork(20);
    EXPECT_THROW(state.reserve(1), CacheFull);
    EXPECT_EQ(dynamic_cast<KvState&>(*state.layers[1]).length(), 20);
  }
  state.reserve(1);
  EXPECT_EQ(pool->bytes(), 4 * kPageBytes);
}

TEST(SequenceState, RecurrentStatesForkByCopy) {
  MambaConfig config;
  config.channels = config.inner = 8;
  config.dt_rank = 2;
  const Mamba mixer(config);
  SequenceState state;
  state.layers.push_back(mixer.make_state({}));
  EXPECT_EQ(state.bytes(), mixer.state_bytes({}, 100, 1));
  dynamic_cast<RecurrentState&>(*state.layers[0]).advance(5);
  state.length = 5;
  const SequenceState other = state.fork(5);
  EXPECT_EQ(other.length, 5);
  EXPECT_FALSE(dynamic_cast<RecurrentState&>(*other.layers[0])
                   .state()
                   .same_storage(dynamic_cast<RecurrentState&>(*state.layers[0]).state()));
  EXPECT_THROW(state.fork(3), Error);
}

TEST(CacheOptions, WhatNoModelCouldDoIsRefused) {
  CacheOptions wrong;
  wrong.k_type = DType::q6_k;
  EXPECT_EQ(test::error_of([&] { check(wrong); }),
            "cache type: expected f32, f16, bf16, q8_0, q5_1 or q4_0, found q6_k");
  wrong = {};
  wrong.sinks = 4;
  EXPECT_THROW(check(wrong), Error);
  wrong = {};
  wrong.rotate_k = true;
  EXPECT_THROW(KvState(CacheLayout{1, 24, 24}, wrong), Error);
}

}  // namespace
}  // namespace qkv
