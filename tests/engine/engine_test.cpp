// The engine against plain full forwards, and what it promises about text, stops, limits and batches.
#include "qkv/engine/engine.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <map>

#include "qkv/core/utf8.h"
#include "qkv/models/bundle.h"
#include "qkv/tensor/autograd.h"
#include "tests/engine/engine_support.h"
#include "tests/support/golden_safetensors.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

using test::bytes;
using test::ByteTokenizer;
using test::greedy;
using test::Reciter;
using test::small_llama;

// Greedy continuation by one forward over the whole text for every token.
std::vector<int32_t> greedy_by_full_forwards(const Model& model, std::vector<int32_t> tokens, int64_t n) {
  const NoGrad no_grad;
  std::vector<int32_t> result;
  for (int64_t i = 0; i < n; ++i) {
    const Tensor logits =
        model.logits(model.forward(tokens, Pass::whole({static_cast<int64_t>(tokens.size())})));
    const Tensor last = logits.row_view(logits.rows() - 1, logits.rows());
    result.push_back(*likeliest(last.span<float>()));
    tokens.push_back(result.back());
  }
  return result;
}

Completion answer(Engine& engine, Request request) {
  return complete(engine, {std::move(request)}).front();
}

// A reciter that continues `prompt` with `text`, and then ends.
Reciter reciter(const std::string& prompt, const std::string& text, int64_t max_positions = 1000) {
  std::vector<int32_t> script = bytes(prompt + text);
  script.push_back(ByteTokenizer::kEnd);
  return Reciter(script, max_positions);
}

TEST(Engine, IncrementalEqualsFullForwards) {
  const auto model = small_llama();
  Engine engine(*model);
  const std::vector<int32_t> prompt = bytes("Once upon a time");
  const Completion completion = answer(engine, greedy(prompt, 40));
  EXPECT_EQ(completion.tokens, greedy_by_full_forwards(*model, prompt, 40));
  EXPECT_EQ(completion.finish, FinishReason::length);
  EXPECT_TRUE(completion.text.empty());  // no tokenizer
}

TEST(Engine, ABatchEqualsEachAlone) {
  const auto model = small_llama();
  const std::vector<std::vector<int32_t>> prompts = {bytes("The dog"), bytes("A"),
                                                     bytes("There was a small house by the river")};
  std::vector<Request> requests;
  for (size_t i = 0; i < prompts.size(); ++i)
    requests.push_back(greedy(prompts[i], 20 + 5 * static_cast<int64_t>(i)));
  requests[1].logprobs = true;
  Engine together(*model);
  const auto batch = complete(together, requests);
  for (size_t i = 0; i < prompts.size(); ++i) {
    Engine alone(*model);
    const Completion single = answer(alone, requests[i]);
    EXPECT_EQ(batch[i].tokens, single.tokens) << i;
    ASSERT_EQ(batch[i].logprobs.size(), single.logprobs.size());
    for (size_t t = 0; t < single.logprobs.size(); ++t)
      EXPECT_NEAR(batch[i].logprobs[t], single.logprobs[t], 1e-4);
  }
  EXPECT_EQ(batch[1].logprobs.size(), 25u);
  EXPECT_EQ(together.stats().prefill_tokens, 7 + 1 + 36);
  EXPECT_EQ(together.stats().decode_tokens,
            19 + 24 + 29);  // the first token of each comes out of its prompt's pass
}

TEST(Engine, LogProbabilitiesAreTheModels) {
  const auto model = small_llama();
  Engine engine(*model);
  Request request = greedy(bytes("abc"), 3);
  request.logprobs = true;
  request.sampler.temperature = 0.5f;
  const Completion completion = answer(engine, request);
  std::vector<int32_t> tokens = request.prompt;
  tokens.insert(tokens.end(), completion.tokens.begin(), completion.tokens.end());
  const NoGrad no_grad;
  const Tensor all = ops::log_softmax(model->logits(model->forward(tokens, Pass::whole({6}))));
  for (int64_t t = 0; t < 3; ++t) {
    EXPECT_NEAR(completion.logprobs[static_cast<size_t>(t)],
                all.row_view(2 + t, 3 + t).span<float>()[static_cast<size_t>(tokens[3 + t])], 1e-4);
  }
}

TEST(Engine, PromptsInChunksEqualWholePrompts) {
  const auto model = small_llama();
  const std::vector<int32_t> prompt = bytes("It was a bright cold day in April, and");
  Engine whole(*model);
  const std::vector<int32_t> expected = answer(whole, greedy(prompt, 16)).tokens;
  for (const int64_t chunk : {1, 3, 37}) {
    Engine engine(*model, nullptr, {.prefill_chunk = chunk});
    EXPECT_EQ(answer(engine, greedy(prompt, 16)).tokens, expected) << chunk;
  }
}

TEST(Engine, ALongPromptDoesNotHoldUpSequencesUnderWay) {
  const auto model = small_llama();
  Engine engine(*model, nullptr, {.prefill_chunk = 4});
  const RequestId quick = engine.submit(greedy(bytes("a"), 6));
  engine.step();
  const RequestId slow = engine.submit(greedy(bytes("a prompt of thirty-two characters"), 2));
  std::map<RequestId, int> tokens;
  for (int i = 0; i < 6; ++i) engine.step();
  for (const Event& event : engine.take_events()) tokens[event.request] += event.token ? 1 : 0;
  EXPECT_EQ(tokens[quick], 6);
  EXPECT_EQ(tokens[slow], 0);
}

TEST(Engine, MoreRequestsThanPlaces) {
  const auto model = small_llama();
  Engine engine(*model, nullptr, {.max_sequences = 2});
  std::vector<Request> requests;
  for (const char* text : {"one", "two", "three", "four", "five"}) requests.push_back(greedy(bytes(text), 6));
  const auto completions = complete(engine, requests);
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(completions[i].tokens, greedy_by_full_forwards(*model, requests[i].prompt, 6)) << i;
  }
  EXPECT_TRUE(engine.idle());
  EXPECT_EQ(engine.state_bytes(), 0u);
}

TEST(Engine, TheSameSeedGivesTheSameText) {
  const auto model = small_llama();
  const ByteTokenizer tokenizer;
  const auto sample = [&](uint64_t seed) {
    Engine engine(*model, &tokenizer);
    Request request = greedy(bytes("Hello"), 30);
    request.sampler = {.temperature = 1.5f, .top_k = 50, .top_p = 0.95f, .seed = seed};
    request.ignore_eos = true;
    return answer(engine, request).tokens;
  };
  EXPECT_EQ(sample(1), sample(1));
  EXPECT_NE(sample(1), sample(2));
}

TEST(Engine, StopStringsAcrossTokens) {
  const ByteTokenizer tokenizer;
  const Reciter model = reciter("Q: who?", " Mia.\nQ: what?");
  Engine engine(model, &tokenizer);
  Request request = greedy(bytes("Q: who?"), 100);
  request.stop = {"\nQ:"};
  std::string text;
  engine.submit(request);
  std::optional<FinishReason> reason;
  for (bool more = true; more;) {
    more = engine.step();
    for (const Event& event : engine.take_events()) {
      text += event.text;
      EXPECT_EQ(text.find('\n'), std::string::npos);
      if (event.finish) reason = event.finish;
    }
  }
  EXPECT_EQ(text, " Mia.");
  EXPECT_EQ(reason, FinishReason::stop);
}

TEST(Engine, WhatLookedLikeAStopIsGivenOutAtTheEnd) {
  const ByteTokenizer tokenizer;
  const Reciter model = reciter("x", "end of line\n");
  Engine engine(model, &tokenizer);
  Request request = greedy(bytes("x"), 100);
  request.stop = {"\n\n"};
  const Completion completion = answer(engine, request);
  EXPECT_EQ(completion.text, "end of line\n");
  EXPECT_EQ(completion.finish, FinishReason::eos);
}

TEST(Engine, TextIsWholeCharactersOnly) {
  const ByteTokenizer tokenizer;
  const std::string said = "é€😀!";
  const Reciter model = reciter("x", said);
  Engine engine(model, &tokenizer);
  engine.submit(greedy(bytes("x"), 100));
  std::string text;
  size_t pieces = 0;
  for (bool more = true; more;) {
    more = engine.step();
    for (const Event& event : engine.take_events()) {
      EXPECT_FALSE(first_invalid_utf8(event.text));
      pieces += event.text.empty() ? 0 : 1;
      text += event.text;
    }
  }
  EXPECT_EQ(text, said);
  EXPECT_EQ(pieces, 4u);
}

TEST(Engine, ACharacterCutOffIsReplaced) {
  const ByteTokenizer tokenizer;
  const Reciter model = reciter("x", "a€");
  Engine engine(model, &tokenizer);
  const Completion completion = answer(engine, greedy(bytes("x"), 3));
  EXPECT_EQ(completion.text, "a\xEF\xBF\xBD");
  EXPECT_EQ(completion.finish, FinishReason::length);
}

TEST(Engine, EndsAtTheEndOfTextUnlessToldOtherwise) {
  const ByteTokenizer tokenizer;
  std::vector<int32_t> script = bytes("xab");
  script.push_back(ByteTokenizer::kEnd);
  script.push_back('c');
  script.push_back('d');
  const Reciter model(script);
  Engine engine(model, &tokenizer);
  Request request = greedy(bytes("x"), 5);
  const Completion ended = answer(engine, request);
  EXPECT_EQ(ended.finish, FinishReason::eos);
  EXPECT_EQ(ended.text, "ab");
  EXPECT_EQ(ended.tokens, (std::vector<int32_t>{'a', 'b', ByteTokenizer::kEnd}));
  request.ignore_eos = true;
  const Completion ignored = answer(engine, request);
  EXPECT_EQ(ignored.text, "abcd");
  EXPECT_EQ(ignored.finish, FinishReason::length);
  request.ignore_eos = false;
  request.stop_ids = {'b'};
  const Completion stopped = answer(engine, request);
  EXPECT_EQ(stopped.text, "a");
  EXPECT_EQ(stopped.finish, FinishReason::stop);
}

TEST(Engine, TheContextEndsAnAnswer) {
  const ByteTokenizer tokenizer;
  const Reciter model = reciter("0123", "456789abcdef", 8);
  Engine engine(model, &tokenizer);
  const Completion completion = answer(engine, greedy(bytes("0123"), 100));
  EXPECT_EQ(completion.text, "4567");
  EXPECT_EQ(completion.finish, FinishReason::context);
  EXPECT_EQ(test::error_of([&] { engine.submit(greedy(bytes("01234567"), 1)); }),
            "prompt: 8 tokens leave no room for an answer in a context of 8");
}

TEST(Engine, CancellingGivesOutWhatIsThere) {
  const ByteTokenizer tokenizer;
  const Reciter model = reciter("x", "ab\ncdefgh");
  Engine engine(model, &tokenizer, {.max_sequences = 1});
  Request request = greedy(bytes("x"), 100);
  request.stop = {"\n\n"};
  const RequestId first = engine.submit(request), second = engine.submit(request);
  for (int i = 0; i < 3; ++i) engine.step();
  engine.cancel(second);
  engine.cancel(first);
  engine.cancel(first);
  engine.cancel(12345);
  std::map<RequestId, std::string> text;
  std::map<RequestId, int> cancelled;
  for (const Event& event : engine.take_events()) {
    text[event.request] += event.text;
    cancelled[event.request] += event.finish == FinishReason::cancelled ? 1 : 0;
  }
  EXPECT_EQ(text[first], "ab\n");
  EXPECT_EQ(text[second], "");
  EXPECT_EQ(cancelled[first], 1);
  EXPECT_EQ(cancelled[second], 1);
  EXPECT_FALSE(engine.step());
}

TEST(Engine, CancellingOneLeavesItsBatchMatesAlone) {
  const auto model = small_llama();
  Engine engine(*model);
  const RequestId gone = engine.submit(greedy(bytes("some words"), 30));
  const RequestId stays = engine.submit(greedy(bytes("others"), 10));
  for (int i = 0; i < 4; ++i) engine.step();
  engine.cancel(gone);
  while (engine.step()) {
  }
  std::vector<int32_t> tokens;
  for (const Event& event : engine.take_events()) {
    if (event.request == stays && event.token) tokens.push_back(*event.token);
  }
  EXPECT_EQ(tokens, greedy_by_full_forwards(*model, bytes("others"), 10));
}

TEST(Engine, AKeptSequenceIsContinued) {
  const auto model = small_llama();
  Engine fresh(*model), engine(*model, nullptr, {.kept_sequences = 1});
  std::vector<int32_t> conversation = bytes("Hello, who are you?");
  for (const char* next : {" And your name?", " Why?"}) {
    const Completion expected = answer(fresh, greedy(conversation, 8));
    const Completion got = answer(engine, greedy(conversation, 8));
    EXPECT_EQ(got.tokens, expected.tokens);
    conversation.insert(conversation.end(), got.tokens.begin(), got.tokens.end());
    const std::vector<int32_t> more = bytes(next);
    conversation.insert(conversation.end(), more.begin(), more.end());
  }
  // The second prompt: 19 + 7 tokens were in the state (the last token of an answer never was).
  EXPECT_EQ(engine.stats().reused_tokens, 26);
  EXPECT_GT(engine.state_bytes(), 0u);
  // Another prompt that shares a beginning is not misled by what followed it.
  const std::vector<int32_t> other = bytes("Hello, where are we?");
  EXPECT_EQ(answer(engine, greedy(other, 8)).tokens, greedy_by_full_forwards(*model, other, 8));
  // The same prompt again: all but its last token is there.
  const int64_t reused = engine.stats().reused_tokens;
  EXPECT_EQ(answer(engine, greedy(other, 8)).tokens, greedy_by_full_forwards(*model, other, 8));
  EXPECT_EQ(engine.stats().reused_tokens - reused, static_cast<int64_t>(other.size()) - 1);
}

TEST(Engine, StateBytesAreTheCaches) {
  const auto model = small_llama();
  Engine engine(*model);
  engine.submit(greedy(bytes("ab"), 4));
  EXPECT_EQ(engine.state_bytes(), 0u);
  engine.step();
  const SequenceState state = model->make_state();
  EXPECT_GE(engine.state_bytes(),
            2u * 2 * 2 * 16 * sizeof(float));  // 2 tokens, 2 layers, keys and values of width 16
  while (engine.step()) {
  }
  EXPECT_EQ(engine.state_bytes(), 0u);
}

TEST(Engine, ComputesInBf16) {
  const auto model = small_llama();
  Engine engine(*model, nullptr, {.compute_type = DType::bf16});
  EXPECT_EQ(answer(engine, greedy(bytes("Once"), 10)).tokens.size(), 10u);
}

TEST(Engine, AModelThatGivesNoNumberFailsItsSequenceOnly) {
  const ByteTokenizer tokenizer;
  const Reciter model(bytes("xab"));  // NaN after three tokens
  Engine engine(model, &tokenizer);
  engine.submit(greedy(bytes("x"), 100));
  const RequestId good = engine.submit(greedy(bytes("x"), 1));
  std::vector<Event> events;
  while (engine.step()) {
  }
  for (Event& event : engine.take_events()) {
    if (event.finish) events.push_back(std::move(event));
  }
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[0].request, good);
  EXPECT_EQ(events[0].finish, FinishReason::length);
  EXPECT_EQ(events[1].finish, FinishReason::failed);
  EXPECT_EQ(events[1].error,
            "the token at position 3: the model gave no number, its weights or its input overflow");
  EXPECT_EQ(test::error_of([&] { answer(engine, greedy(bytes("x"), 100)); }), events[1].error);
}

TEST(Engine, RefusesWhatCannotBeServed) {
  const auto model = small_llama();
  Engine engine(*model);
  EXPECT_EQ(test::error_of([&] { engine.submit({}); }), "prompt: expected at least one token, found none");
  EXPECT_EQ(test::error_of([&] {
              engine.submit(greedy({5, 257}, 1));
            }),
            "prompt: expected token ids below 257, found 257");
  EXPECT_EQ(test::error_of([&] { engine.submit(greedy({-1}, 1)); }),
            "prompt: expected token ids below 257, found -1");
  EXPECT_EQ(test::error_of([&] { engine.submit(greedy({1}, 0)); }),
            "tokens to generate: expected at least 1, found 0");
  Request stops = greedy({1}, 1);
  stops.stop = {"x"};
  EXPECT_EQ(test::error_of([&] { engine.submit(stops); }),
            "stop strings: need a tokenizer, and this model came without one");
  Request hot = greedy({1}, 1);
  hot.sampler.temperature = -1;
  EXPECT_EQ(test::error_of([&] {
              complete(engine, {greedy({1}, 1), hot});
            }),
            "temperature: expected a number from 0 to 100, found -1");
  EXPECT_TRUE(engine.idle());
  EXPECT_EQ(test::error_of([&] { Engine(*model, nullptr, {.max_context = 97}); }),
            "context: expected 2 to 96 tokens, the positions of this model, found 97");
  EXPECT_EQ(test::error_of([&] { Engine(*model, nullptr, {.compute_type = DType::f16}); }),
            "compute type: expected f32 or bf16, found f16");
}

// Real checkpoints with the tokens that Hugging Face transformers generated from them, two sequences at a
// time.
class ReferenceModel : public testing::TestWithParam<std::string> {};

TEST_P(ReferenceModel, GreedyTokensAreThoseOfTheReference) {
  const std::string directory = test::shared("fixtures/models/" + GetParam());
  if (!std::filesystem::exists(directory)) GTEST_SKIP() << "no " << directory;
  const Bundle bundle = load_bundle(directory, {.tokenizer_required = false});
  const test::GoldenSafetensors expected(directory + "/expected.safetensors");
  const auto tokens = expected.values("greedy_tokens");
  const int64_t rows = expected.shape("greedy_tokens")[0], length = expected.shape("greedy_tokens")[1],
                prompt = 8;
  std::vector<Request> requests;
  for (int64_t row = 0; row < rows; ++row) {
    const auto begin = tokens.begin() + row * length;
    requests.push_back(greedy(std::vector<int32_t>(begin, begin + prompt), length - prompt));
  }
  Engine engine(*bundle.model);
  const auto completions = complete(engine, requests);
  for (int64_t row = 0; row < rows; ++row) {
    const auto begin = tokens.begin() + row * length;
    EXPECT_EQ(completions[static_cast<size_t>(row)].tokens,
              std::vector<int32_t>(begin + prompt, begin + length))
        << "row " << row;
  }
}

INSTANTIATE_TEST_SUITE_P(Llama, ReferenceModel,
                         testing::Values("llama", "llama_bf16", "llama_f16", "llama_mha_tied_bias",
                                         "llama_rope_linear", "llama_rope_llama3", "llama_rope_yarn",
                                         "llama_sharded"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace qkv
