// What attention layers remember: windows keep only what later tokens can see, and shortening works as far as
// that.
#include <gtest/gtest.h>

#include "qkv/core/error.h"
#include "qkv/nn/state.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

// Rows whose first element is the token's number.
Tensor rows(int64_t first, int64_t n, int64_t width) {
  Tensor t = Tensor::zeros({n, width});
  for (int64_t i = 0; i < n; ++i) t.data<float>()[i * width] = static_cast<float>(first + i);
  return t;
}

std::vector<float> tokens_of(const Tensor& held) {
  std::vector<float> tokens;
  for (int64_t i = 0; i < held.rows(); ++i) tokens.push_back(held.data<float>()[i * held.cols()]);
  return tokens;
}

TEST(KvState, GrowsByDoublingAndShortens) {
  KvState state(3, 2);
  for (int64_t t = 0; t < 100; ++t) state.append(rows(t, 1, 3), rows(t, 1, 2));
  EXPECT_EQ(state.length(), 100);
  EXPECT_EQ(tokens_of(state.keys()), tokens_of(rows(0, 100, 3)));
  EXPECT_EQ(tokens_of(state.values()), tokens_of(rows(0, 100, 2)));
  EXPECT_EQ(state.bytes(), 128u * 5 * 4);
  state.truncate(7);
  state.append(rows(7, 2, 3), rows(7, 2, 2));
  EXPECT_EQ(tokens_of(state.keys()), tokens_of(rows(0, 9, 3)));
  EXPECT_EQ(test::error_of([&] { state.truncate(10); }), "kv cache: cannot shorten 9 tokens to 10");
}

TEST(KvState, AWindowKeepsWhatLaterTokensSee) {
  constexpr int64_t window = 50;
  KvState state(3, 2, window);
  for (int64_t t = 0; t < 1000; ++t) {
    state.append(rows(t, 1, 3), rows(t, 1, 2));
    const std::vector<float> held = tokens_of(state.keys());
    ASSERT_EQ(held.back(), static_cast<float>(t));
    ASSERT_GE(static_cast<int64_t>(held.size()), std::min(t + 1, window)) << t;
    ASSERT_EQ(held, tokens_of(rows(t + 1 - static_cast<int64_t>(held.size()),
                                   static_cast<int64_t>(held.size()), 3)));
    ASSERT_EQ(held, tokens_of(state.values()));
    state.trim();
  }
  EXPECT_EQ(state.length(), 1000);
  EXPECT_EQ(state.bytes(), static_cast<uint64_t>(2 * window) * 5 * 4);
}

TEST(KvState, ALongPromptIsGivenBackBeyondTheWindow) {
  KvState state(3, 2, 40);
  state.append(rows(0, 500, 3), rows(0, 500, 2));
  EXPECT_EQ(state.keys().rows(), 500);  // its own tokens need all of it
  state.trim();
  EXPECT_EQ(state.bytes(), 80u * 5 * 4);
  EXPECT_EQ(tokens_of(state.keys()), tokens_of(rows(461, 39, 3)));
  state.append(rows(500, 1, 3), rows(500, 1, 2));
  EXPECT_EQ(tokens_of(state.keys()), tokens_of(rows(461, 40, 3)));
}

TEST(KvState, AWindowShortensWithinWhatItHolds) {
  KvState state(3, 2, 4);
  state.append(rows(0, 60, 3), rows(0, 60, 2));
  state.truncate(10);  // nothing is dropped yet
  for (int64_t t = 10; t < 300; ++t) state.append(rows(t, 1, 3), rows(t, 1, 2));
  const int64_t oldest = static_cast<int64_t>(tokens_of(state.keys()).front());
  ASSERT_GT(oldest, 0);
  state.truncate(oldest + 3);  // the next token sees the three before it
  EXPECT_EQ(tokens_of(state.keys()), tokens_of(rows(oldest, 3, 3)));
  EXPECT_EQ(test::error_of([&] { state.truncate(oldest + 2); }),
            "kv cache: cannot shorten to " + std::to_string(oldest + 2) +
                " tokens: a window of 4 keeps only those from " + std::to_string(oldest) + " on");
}

TEST(KvState, ValuesCanBePartOfTheKeys) {
  KvState state(6, 0);
  state.append(rows(0, 3, 6));
  EXPECT_EQ(state.keys().shape(), (Shape{3, 6}));
  EXPECT_EQ(state.bytes(), 64u * 6 * 4);
  EXPECT_THROW(state.append(rows(3, 1, 6), rows(3, 1, 2)), Error);
}

}  // namespace
}  // namespace qkv
