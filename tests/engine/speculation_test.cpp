// Speculative decoding: the same answers in fewer passes, whoever drafts and however badly.
#include "qkv/engine/speculation.h"

#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>

#include "tests/engine/engine_support.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

using test::bytes;
using test::ByteTokenizer;
using test::greedy;
using test::Reciter;
using test::small_llama;

// Proposes what it was told will come, right or wrong.
class Oracle : public Drafter {
 public:
  explicit Oracle(std::vector<int32_t> text) : text_(std::move(text)) {}
  void propose(std::span<DraftJob> jobs) override {
    for (DraftJob& job : jobs) {
      for (size_t i = job.tokens.size();
           i < text_.size() && static_cast<int64_t>(job.draft.size()) < job.limit; ++i) {
        job.draft.push_back(text_[i]);
      }
    }
  }

 private:
  std::vector<int32_t> text_;
};

std::vector<int32_t> draft_of(PromptLookup lookup, const std::string& text, int64_t limit = 8) {
  const std::vector<int32_t> tokens = bytes(text);
  DraftJob job{1, tokens, limit, {}};
  lookup.propose({&job, 1});
  return job.draft;
}

TEST(PromptLookup, ProposesWhatFollowedTheLongestMatch) {
  EXPECT_EQ(draft_of(PromptLookup(), "abcX bcY abc", 3), bytes("X b"));
  EXPECT_EQ(draft_of(PromptLookup(), "bcX bcY bc", 2), bytes("Y "));  // the latest of equals
  EXPECT_EQ(draft_of(PromptLookup(3, 4), "bcX bcY qbc"), bytes(""));
  EXPECT_EQ(draft_of(PromptLookup(), "abab", 8), bytes("ab"));
  EXPECT_EQ(draft_of(PromptLookup(), "a"), bytes(""));
  EXPECT_EQ(test::error_of([] { PromptLookup(0, 3); }),
            "prompt lookup: expected matches from 1 token up, found 0 to 3");
}

class EveryDrafter : public testing::TestWithParam<const char*> {
 protected:
  std::shared_ptr<Drafter> make(const std::vector<int32_t>& answer) {
    const std::string name = GetParam();
    if (name == "right") return std::make_shared<Oracle>(answer);
    if (name == "lookup") return std::make_shared<PromptLookup>(1, 3);
    if (name == "itself") return std::make_shared<ModelDrafter>(*model_, DType::f32, 0.0f);
    if (name == "other") return std::make_shared<ModelDrafter>(*other_, DType::f32, 0.0f);
    std::vector<int32_t> wrong = answer;
    for (size_t i = 0; i < wrong.size(); i += name == "wrong" ? 1 : 3) wrong[i] = (wrong[i] + 1) % 256;
    return std::make_shared<Oracle>(wrong);
  }
  std::unique_ptr<Model> model_ = small_llama(), other_ = small_llama(99);
};

INSTANTIATE_TEST_SUITE_P(Drafters, EveryDrafter,
                         testing::Values("right", "partly", "wrong", "lookup", "itself", "other"));

TEST_P(EveryDrafter, ChangesNothing) {
  for (const float temperature : {0.0f, 1.0f}) {
    Request request = greedy(bytes("the cat the cat the"), 60);
    request.sampler = {.temperature = temperature, .top_k = 40, .seed = 5};
    request.logprobs = true;
    Engine plain(*model_);
    const Completion expected = complete(plain, {request}).front();
    std::vector<int32_t> all = request.prompt;
    all.insert(all.end(), expected.tokens.begin(), expected.tokens.end());
    Engine engine(*model_, nullptr, {.drafter = make(all)});
    const Completion answer = complete(engine, {request}).front();
    EXPECT_EQ(answer.tokens, expected.tokens);
    ASSERT_EQ(answer.logprobs.size(), expected.logprobs.size());
    for (size_t i = 0; i < answer.logprobs.size(); ++i)
      EXPECT_NEAR(answer.logprobs[i], expected.logprobs[i], 1e-4);
    const EngineStats& stats = engine.stats();
    EXPECT_EQ(stats.decode_tokens, 59);
    EXPECT_LE(stats.accepted_drafts, stats.drafted_tokens);
    const std::string name = GetParam();
    if (name == "right" || (name == "itself" && temperature == 0)) {
      EXPECT_EQ(stats.accepted_drafts, stats.drafted_tokens);
      EXPECT_GT(stats.accepted_drafts, 40);
    }
    if (name == "wrong") {
      EXPECT_EQ(stats.accepted_drafts, 0);
    }
  }
}

TEST_P(EveryDrafter, ServesManySequencesAndKeepsTheirStates) {
  std::vector<Request> requests;
  for (const char* text : {"one two one two", "a", "xyz xyz"}) requests.push_back(greedy(bytes(text), 25));
  Engine plain(*model_);
  const auto expected = complete(plain, requests);
  std::vector<int32_t> all = requests[0].prompt;
  all.insert(all.end(), expected[0].tokens.begin(), expected[0].tokens.end());
  Engine engine(*model_, nullptr, {.kept_sequences = 3, .drafter = make(all)});
  const auto answers = complete(engine, requests);
  for (size_t i = 0; i < requests.size(); ++i) EXPECT_EQ(answers[i].tokens, expected[i].tokens) << i;
  // Going on from a kept state gives what a fresh engine gives.
  Request next = greedy(all, 10);
  Engine fresh(*model_);
  EXPECT_EQ(complete(engine, {next}).front().tokens, complete(fresh, {next}).front().tokens);
  EXPECT_GT(engine.stats().reused_tokens, 0);
}

TEST(Speculation, PassesAreFewer) {
  const std::string prompt = "p", text(200, 'x');
  std::vector<int32_t> script = bytes(prompt + text);
  script.push_back(ByteTokenizer::kEnd);
  const Reciter model(script);
  const ByteTokenizer tokenizer;
  for (const bool drafting : {false, true}) {
    EngineOptions options;
    if (drafting) options.drafter = std::make_shared<Oracle>(script);
    Engine engine(model, &tokenizer, options);
    engine.submit(greedy(bytes(prompt), 400));
    int steps = 0;
    std::string answer;
    for (bool more = true; more; ++steps) {
      more = engine.step();
      for (const Event& event : engine.take_events()) answer += event.text;
    }
    EXPECT_EQ(answer, text);
    // Drafts of 4, 8, 16, 16, ... and one token more each.
    EXPECT_EQ(steps, drafting ? 14 : 201);
  }
}

TEST(Speculation, FailingDraftsAreGivenUp) {
  DraftLength length(16);
  int proposed = 0;
  for (int i = 0; i < 200; ++i) {
    const int64_t n = length.next();
    proposed += static_cast<int>(n);
    length.report(n, 0);
  }
  EXPECT_LT(proposed, 30);
  while (length.next() == 0) {
  }
  length.report(1, 1);
  EXPECT_EQ(length.next(), 2);
}

TEST(Speculation, RecurrentModelsAndOtherVocabulariesAreRefused) {
  const auto mamba = make_model({{"model_type", "mamba"},
                                 {"vocab_size", 257},
                                 {"hidden_size", 16},
                                 {"state_size", 4},
                                 {"num_hidden_layers", 1}},
                                "small mamba");
  initialize_weights(*mamba, 1, 0.1f);
  EXPECT_EQ(
      test::error_of([&] { ModelDrafter drafter(*mamba); }),
      "draft model: expected one whose state can be shortened, found MambaForCausalLM, a recurrent one");
  EXPECT_EQ(
      test::error_of([&] { Engine engine(*mamba, nullptr, {.drafter = std::make_shared<PromptLookup>()}); }),
      "speculative decoding: expected a model whose state can be shortened, found MambaForCausalLM, a "
      "recurrent one");
  class Other : public ByteTokenizer {
   public:
    Other() { entry(65).bytes = "B"; }
  };
  check_same_vocabulary(ByteTokenizer(), ByteTokenizer());
  EXPECT_EQ(
      test::error_of([] { check_same_vocabulary(ByteTokenizer(), Other()); }),
      "draft model: expected the vocabulary of the model, but token 65 is '<65>' there and '<65>' here");
}

TEST(Engine, BannedStringsAreNeverCompleted) {
  const auto model = small_llama();
  const ByteTokenizer tokenizer;
  Request request = greedy(bytes("Hello"), 60);
  request.ignore_eos = true;
  Engine engine(*model, &tokenizer);
  const Completion free = complete(engine, {request}).front();
  std::string text;
  for (const int32_t id : free.tokens) text += tokenizer.token_bytes(id);
  request.banned_strings = {text.substr(10, 3), text.substr(0, 1)};
  const Completion answer = complete(engine, {request}).front();
  text.clear();
  for (const int32_t id : answer.tokens) text += tokenizer.token_bytes(id);
  EXPECT_EQ(answer.tokens.size(), 60u);
  for (const std::string& banned : request.banned_strings) EXPECT_EQ(text.find(banned), std::string::npos);
  EXPECT_NE(answer.tokens, free.tokens);
}

TEST(Engine, AnswersCanHaveALeastLength) {
  const Reciter model(
      {'p', 'a', ByteTokenizer::kEnd, ByteTokenizer::kEnd, ByteTokenizer::kEnd, ByteTokenizer::kEnd});
  const ByteTokenizer tokenizer;
  Engine engine(model, &tokenizer);
  Request request = greedy(bytes("p"), 10);
  request.min_new_tokens = 3;
  const Completion answer = complete(engine, {request}).front();
  EXPECT_EQ(answer.tokens.size(), 4u);
  EXPECT_EQ(answer.finish, FinishReason::eos);
}

TEST(Engine, PromptAndTopLogprobs) {
  const auto model = small_llama();
  Request request = greedy(bytes("It was a bright cold day"), 3);
  request.prompt_logprobs = true;
  request.logprobs = true;
  request.top_logprobs = 4;
  Engine engine(*model, nullptr, {.prefill_chunk = 7, .kept_sequences = 2});
  Completion answer;
  for (int i = 0; i < 2; ++i)
    answer = complete(engine, {request}).front();  // the second finds a kept state, unused
  ASSERT_EQ(answer.prompt_logprobs.size(), request.prompt.size() - 1);
  const NoGrad no_grad;
  const Tensor all = ops::log_softmax(model->logits(
      model->forward(request.prompt, Pass::whole({static_cast<int64_t>(request.prompt.size())}))));
  for (size_t i = 0; i + 1 < request.prompt.size(); ++i) {
    const auto row = static_cast<int64_t>(i);
    EXPECT_NEAR(answer.prompt_logprobs[i],
                all.row_view(row, row + 1).span<float>()[static_cast<size_t>(request.prompt[i + 1])], 1e-4);
  }
  ASSERT_EQ(answer.top_logprobs.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    ASSERT_EQ(answer.top_logprobs[i].size(), 4u);
    EXPECT_EQ(answer.top_logprobs[i][0].token, answer.tokens[i]);
    EXPECT_EQ(answer.top_logprobs[i][0].logprob, answer.logprobs[i]);
  }
}

}  // namespace
}  // namespace qkv
