// The radix tree of states: what it finds, what it splits, drops and shares.
#include "qkv/engine/prefix_tree.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "qkv/core/rng.h"
#include "qkv/nn/kv_state.h"
#include "tests/engine/engine_support.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

using Tokens = std::vector<int32_t>;

// A state whose only key of token t is the token itself; `window`: it forgets what is older.
SequenceState state_of(const Tokens& tokens, const CacheOptions& options, int64_t window = 0) {
  SequenceState state;
  auto layer = std::make_unique<KvState>(CacheLayout{1, 16, 16}, options, window);
  for (const int32_t token : tokens) {
    const Tensor row = Tensor::full({1, 16}, static_cast<float>(token));
    layer->append(row, row);
    layer->trim();
  }
  state.layers.push_back(std::move(layer));
  state.length = static_cast<int64_t>(tokens.size());
  return state;
}

Tokens tokens_in(const SequenceState& state) {
  const Tensor keys = dynamic_cast<const KvState&>(*state.layers[0]).keys();
  Tokens tokens;
  for (int64_t t = 0; t < keys.rows(); ++t)
    tokens.push_back(static_cast<int32_t>(keys.data<float>()[t * keys.cols()]));
  return tokens;
}

Tokens range(int32_t begin, int32_t end) {
  Tokens tokens;
  for (int32_t i = begin; i < end; ++i) tokens.push_back(i);
  return tokens;
}

Tokens joined(Tokens a, const Tokens& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

TEST(PrefixTree, FindsTheLongestBeginning) {
  PrefixTree tree;
  const CacheOptions options{.page_tokens = 16, .pool = PagePool::make()};
  const Tokens common = range(0, 40), a = joined(common, {100, 101}), b = joined(common, {200, 201, 202});
  EXPECT_FALSE(tree.find(a, 42));
  tree.insert(a, state_of(a, options));
  tree.insert(b, state_of(b, options));
  EXPECT_EQ(tree.size(), 2);
  EXPECT_EQ(tree.match(joined(common, {200, 5}), 100), 41);
  EXPECT_EQ(tree.match(joined(common, {300}), 100), 40);
  EXPECT_EQ(tree.match(range(0, 7), 100), 7);
  EXPECT_EQ(tree.match(range(0, 7), 3), 3);
  EXPECT_EQ(tree.match(Tokens{9, 1}, 100), 0);
  const auto found = tree.find(joined(common, {200, 201, 9}), 100);
  ASSERT_TRUE(found);
  EXPECT_EQ(tokens_in(*found), joined(common, {200, 201}));
}

TEST(PrefixTree, ALongerStateStandsInForItsBeginnings) {
  PrefixTree tree;
  const CacheOptions options{.page_tokens = 16, .pool = PagePool::make()};
  for (const int32_t n : {10, 30, 20}) tree.insert(range(0, n), state_of(range(0, n), options));
  EXPECT_EQ(tree.size(), 1);
  EXPECT_EQ(tree.match(range(0, 50), 50), 30);
  EXPECT_TRUE(tree.drop_oldest());
  EXPECT_FALSE(tree.drop_oldest());
  EXPECT_EQ(options.pool->bytes(), 0u);
}

TEST(PrefixTree, AWindowThatHasMovedOnServesOnlyAsAWhole) {
  PrefixTree tree;
  const CacheOptions options{.page_tokens = 16, .pool = PagePool::make()};
  const Tokens a = range(0, 200);
  tree.insert(a, state_of(a, options, 16));
  EXPECT_EQ(tree.match(range(0, 100), 100), 0);
  tree.insert(range(0, 60), state_of(range(0, 60), options, 16));
  EXPECT_EQ(tree.size(), 2);
  EXPECT_EQ(tree.match(joined(range(0, 60), {7}), 61), 60);
  EXPECT_EQ(tree.match(joined(a, {7}), 300), 200);
}

TEST(PrefixTree, StatesShareTheirPages) {
  PrefixTree tree;
  const CacheOptions options{.page_tokens = 16, .pool = PagePool::make()};
  const Tokens common = range(0, 160);
  tree.insert(common, state_of(common, options));
  const uint64_t before = options.pool->bytes();
  std::vector<SequenceState> forks;
  for (int i = 0; i < 8; ++i) forks.push_back(*tree.find(common, 160));
  EXPECT_EQ(options.pool->bytes(), before);
  const Tensor row = Tensor::full({1, 16}, -1.0f);
  dynamic_cast<KvState&>(*forks[0].layers[0]).append(row, row);  // what it writes is its own
  EXPECT_EQ(tokens_in(*tree.find(common, 160)), common);
  EXPECT_EQ(options.pool->bytes(), before + before / 10);
}

// Against a plain list of what was inserted and not dropped.
TEST(PrefixTree, RandomOperationsKeepItsPromises) {
  const CacheOptions options{.page_tokens = 16, .pool = PagePool::make()};
  PrefixTree tree;
  Rng rng(11, 0);
  std::set<Tokens> inserted;
  const auto some = [&] {
    Tokens tokens;
    const auto n = 1 + rng.below(12);
    for (uint64_t i = 0; i < n; ++i) tokens.push_back(static_cast<int32_t>(rng.below(2)));
    return tokens;
  };
  for (int step = 0; step < 3000; ++step) {
    const Tokens tokens = some();
    if (rng.below(3) == 0) {
      inserted.insert(tokens);
      tree.insert(tokens, state_of(tokens, options));
    } else if (rng.below(20) == 0) {
      tree.drop_oldest();
    } else {
      const auto limit = static_cast<int64_t>(rng.below(13));
      const int64_t length = tree.match(tokens, limit);
      ASSERT_LE(length, limit);
      const auto found = tree.find(tokens, limit);
      ASSERT_EQ(found.has_value(), length > 0);
      if (!found) continue;
      const Tokens begin(tokens.begin(), tokens.begin() + length);
      EXPECT_EQ(tokens_in(*found), begin);
      EXPECT_TRUE(std::any_of(inserted.begin(), inserted.end(),
                              [&](const Tokens& known) { return common_prefix(known, begin) == length; }));
    }
  }
  while (tree.drop_oldest()) {
  }
  EXPECT_EQ(tree.size(), 0);
  EXPECT_EQ(options.pool->bytes(), 0u);
}

}  // namespace
}  // namespace qkv
