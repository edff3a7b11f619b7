// Shared beginnings, a limited cache and preemption: the same tokens, less computed, never more memory.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/engine/engine_support.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

using test::bytes;
using test::greedy;
using test::small_llama;

std::vector<Request> alike(size_t count, int64_t new_tokens = 12) {
  const std::string common = "A long beginning that all of these requests have in common, ";
  std::vector<Request> requests;
  for (size_t i = 0; i < count; ++i)
    requests.push_back(
        greedy(bytes(common + std::string(1 + i % 3, static_cast<char>('a' + i))), new_tokens));
  return requests;
}

std::vector<Completion> each_alone(const Model& model, const std::vector<Request>& requests,
                                   const EngineOptions& options = {}) {
  std::vector<Completion> answers;
  for (const Request& request : requests) {
    Engine engine(model, nullptr, options);
    answers.push_back(complete(engine, {request}).front());
  }
  return answers;
}

void expect_same(const std::vector<Completion>& a, const std::vector<Completion>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) EXPECT_EQ(a[i].tokens, b[i].tokens) << i;
}

TEST(Schedule, RequestsThatComeTogetherComputeTheirCommonBeginningOnce) {
  const auto model = small_llama();
  const auto requests = alike(6);
  Engine engine(*model, nullptr, {.deterministic = true});
  const auto apart = complete(engine, requests);
  Engine sharing(*model, nullptr, {.kept_sequences = 16, .deterministic = true});
  expect_same(complete(sharing, requests), apart);
  const auto common = static_cast<int64_t>(common_prefix(requests[0].prompt, requests[1].prompt));
  EXPECT_GE(sharing.stats().reused_tokens, 5 * common);
  EXPECT_LE(sharing.stats().prefill_tokens, engine.stats().prefill_tokens - 5 * common);
  // And later ones.
  const int64_t before = sharing.stats().prefill_tokens;
  expect_same(complete(sharing, requests), apart);
  EXPECT_EQ(sharing.stats().prefill_tokens, before + 6);  // the last token of each
}

TEST(Schedule, WhatIsSharedIsInMemoryOnce) {
  const auto model = small_llama();
  const auto requests = alike(6);
  const auto peak = [&](int64_t kept) {
    const auto pool = PagePool::make();
    Engine engine(*model, nullptr, {.cache = {.page_tokens = 16, .pool = pool}, .kept_sequences = kept});
    complete(engine, requests);
    return pool->peak_bytes();
  };
  EXPECT_LT(peak(6), peak(0) * 4 / 5);
}

TEST(Schedule, KeptStatesAreLimited) {
  const auto model = small_llama();
  Engine engine(*model, nullptr, {.kept_sequences = 2});
  for (const char* text : {"one", "two and", "three", "four"}) complete(engine, {greedy(bytes(text), 3)});
  const int64_t before = engine.stats().reused_tokens;
  complete(engine, {greedy(bytes("four"), 3)});
  EXPECT_EQ(engine.stats().reused_tokens, before + 3);
  complete(engine, {greedy(bytes("one"), 3)});
  EXPECT_EQ(engine.stats().reused_tokens, before + 3);
}

// Of any size that holds the largest request alone: all are answered, with the tokens they would have had.
TEST(Schedule, AFullCachePreemptsAndComputesAgain) {
  const auto model = small_llama();
  for (const bool same_beginning : {false, true}) {
    std::vector<Request> requests = alike(5, 24);
    if (!same_beginning) {
      for (size_t i = 0; i < requests.size(); ++i) requests[i].prompt[0] += static_cast<int32_t>(i);
    }
    requests[3].sampler = {.temperature = 1.0f, .seed = 9};  // draws do not depend on being preempted
    const auto expected = each_alone(*model, requests, {.deterministic = true});
    const int64_t longest = 64 + 24;
    const CacheOptions sizes{.page_tokens = 16};
    bool preempted = false;
    for (const double share : {1.05, 1.7, 2.4, 4.0}) {
      const auto limit =
          static_cast<uint64_t>(share * static_cast<double>(model->state_bytes(sizes, longest)));
      const auto pool = PagePool::make(limit);
      Engine engine(*model, nullptr,
                    {.cache = {.page_tokens = 16, .pool = pool},
                     .prefill_chunk = 16,
                     .kept_sequences = 3,
                     .deterministic = true});
      expect_same(complete(engine, requests), expected);
      EXPECT_LE(pool->peak_bytes(), limit);
      preempted = preempted || engine.stats().preemptions > 0;
    }
    EXPECT_TRUE(preempted);
  }
}

TEST(Schedule, PreemptionKeepsPromptLogprobsAndGivesEachTokenOnce) {
  const auto model = small_llama();
  std::vector<Request> requests = alike(4, 20);
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].prompt[0] += static_cast<int32_t>(i);
    requests[i].prompt_logprobs = requests[i].logprobs = true;
  }
  const CacheOptions sizes{.page_tokens = 16};
  const auto pool = PagePool::make(2 * model->state_bytes(sizes, 90));
  Engine engine(*model, nullptr, {.cache = {.page_tokens = 16, .pool = pool}, .prefill_chunk = 8});
  const auto answers = complete(engine, requests);
  for (size_t i = 0; i < answers.size(); ++i) {
    EXPECT_EQ(answers[i].tokens.size(), 20u);
    EXPECT_EQ(answers[i].prompt_logprobs.size(), requests[i].prompt.size() - 1) << i;
  }
  EXPECT_GT(engine.stats().preemptions, 0);
}

TEST(Schedule, WhatCannotFitIsRefusedOrEndsWithASentence) {
  const auto model = small_llama();
  const CacheOptions sizes{.page_tokens = 16};
  const auto pool = PagePool::make(model->state_bytes(sizes, 32));
  Engine engine(*model, nullptr, {.cache = {.page_tokens = 16, .pool = pool}});
  EXPECT_EQ(test::error_of([&] { engine.submit(alike(1).front()); }),
            "prompt: 61 tokens need 16.0 KiB of cache, and there are 8.00 KiB");
  EXPECT_TRUE(engine.idle());
  engine.submit(greedy(bytes("short"), 90));
  std::string error;
  while (engine.step()) {
  }
  for (const Event& event : engine.take_events()) error += event.error;
  EXPECT_EQ(error, "cache: its 8.00 KiB are in use, 2.00 KiB more are needed");
  EXPECT_EQ(pool->bytes(), 0u);
  // The engine goes on.
  EXPECT_EQ(complete(engine, {greedy(bytes("short"), 5)}).front().tokens.size(), 5u);
}

TEST(Schedule, CancellingFreesWhatOnlyThatRequestHeld) {
  const auto model = small_llama();
  const auto pool = PagePool::make();
  Engine engine(*model, nullptr, {.cache = {.pool = pool}, .max_sequences = 2});
  const auto requests = alike(4);
  std::vector<RequestId> ids;
  for (const Request& request : requests) ids.push_back(engine.submit(request));
  engine.step();
  engine.step();
  engine.cancel(ids[0]);
  engine.cancel(ids[2]);  // it waits
  engine.cancel(ids[2]);
  int finished = 0;
  for (bool more = true; more;) {
    more = engine.step();
    for (const Event& event : engine.take_events()) finished += event.finish ? 1 : 0;
  }
  EXPECT_EQ(finished, 4);
  EXPECT_EQ(pool->bytes(), 0u);
}

TEST(Schedule, CachesOfFewerBitsServeToo) {
  const auto model = small_llama();
  const auto requests = alike(3);
  for (const DType type : {DType::f16, DType::bf16, DType::q8_0}) {
    EngineOptions options;
    options.cache = {.k_type = type, .v_type = type};
    options.kept_sequences = 4;
    options.deterministic = true;
    const auto expected = each_alone(*model, requests, options);
    Engine engine(*model, nullptr, options);
    expect_same(complete(engine, requests), expected);
  }
}

}  // namespace
}  // namespace qkv
