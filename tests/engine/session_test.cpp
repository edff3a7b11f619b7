// Sessions: an answer that was interrupted goes on as if it had not been; damaged files are refused.
#include "qkv/engine/session.h"

#include <gtest/gtest.h>
#include <xxhash.h>

#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "qkv/core/atomic_file.h"
#include "qkv/core/rng.h"
#include "tests/engine/engine_support.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

using test::bytes;
using test::ByteTokenizer;
using test::greedy;
using test::small_llama;

std::unique_ptr<Model> small(const Json& config) {
  Json whole = config;
  whole["vocab_size"] = 257;
  whole["max_position_embeddings"] = 128;
  auto model = make_model(whole, "small model");
  initialize_weights(*model, 5, 0.3f);
  return model;
}

struct Outcome {
  Completion answer;
  std::shared_ptr<Session> session;
};

Outcome run(const Model& model, const EngineOptions& options, Request request) {
  static const ByteTokenizer tokenizer;
  Engine engine(model, &tokenizer, options);
  request.keep_session = true;
  const RequestId id = engine.submit(std::move(request));
  Outcome result;
  while (engine.step()) {
  }
  for (Event& event : engine.take_events()) {
    EXPECT_EQ(event.error, "");
    result.answer.append(std::move(event));
  }
  result.session = engine.take_session(id);
  EXPECT_EQ(engine.take_session(id), nullptr);
  return result;
}

// `first` tokens, then the rest from the file.
Completion in_two(Model& model, const EngineOptions& options, const Request& request, int64_t first,
                  const std::string& path) {
  Request beginning = request;
  beginning.max_new_tokens = first;
  Outcome one = run(model, options, beginning);
  const uint64_t fingerprint = model_fingerprint(model);
  save_session(path, *one.session, options.cache, fingerprint);
  Request rest = request;
  rest.resume = std::make_shared<Session>(load_session(path, model, options.cache, fingerprint));
  rest.prompt.clear();
  rest.max_new_tokens = request.max_new_tokens - first;
  Outcome two = run(model, options, rest);
  Completion whole = std::move(one.answer);
  whole.text += two.answer.text;
  whole.tokens.insert(whole.tokens.end(), two.answer.tokens.begin(), two.answer.tokens.end());
  whole.logprobs.insert(whole.logprobs.end(), two.answer.logprobs.begin(), two.answer.logprobs.end());
  return whole;
}

TEST(Session, AResumedAnswerHasTheSameBits) {
  const test::TemporaryDirectory folder;
  const Json llama = {{"model_type", "llama"},  {"hidden_size", 32},        {"intermediate_size", 64},
                      {"num_hidden_layers", 2}, {"num_attention_heads", 4}, {"num_key_value_heads", 2}};
  Json window = llama;
  window["model_type"] = "mistral";
  window["sliding_window"] = 16;
  const Json mamba = {
      {"model_type", "mamba"}, {"hidden_size", 16}, {"state_size", 4}, {"num_hidden_layers", 2}};
  for (const Json& config : {llama, window, mamba}) {
    const auto model = small(config);
    for (const DType type : {DType::f32, DType::q8_0}) {
      EngineOptions options;
      options.cache = {.k_type = type, .v_type = type, .page_tokens = 16};
      for (const int mirostat : {0, 2}) {
        Request request = greedy(bytes("the cat the cat sat on"), 50);
        request.sampler = {.temperature = 1.2f, .seed = 77, .mirostat = mirostat};
        request.ignore_eos = request.logprobs = true;
        const Completion whole = run(*model, options, request).answer;
        for (const int64_t first : {1, 7, 30, 49}) {
          const Completion parts = in_two(*model, options, request, first, folder / "session");
          EXPECT_EQ(parts.tokens, whole.tokens) << config.dump() << first;
          EXPECT_EQ(std::memcmp(parts.logprobs.data(), whole.logprobs.data(), 50 * sizeof(float)), 0);
        }
      }
    }
  }
}

TEST(Session, BannedTextAndPenaltiesReachAcrossTheBreak) {
  const test::TemporaryDirectory folder;
  const auto model = small_llama();
  Request request = greedy(bytes("Hello"), 40);
  request.ignore_eos = true;
  request.sampler.dry_multiplier = 0.8f;
  const Completion free = run(*model, {}, request).answer;
  std::string text;
  for (const int32_t id : free.tokens) text += static_cast<char>(id < 256 ? id : ' ');
  request.banned_strings = {text.substr(10, 4)};
  const Completion whole = run(*model, {}, request).answer;
  EXPECT_NE(whole.tokens, free.tokens);
  for (const int64_t first : {11, 12, 13})
    EXPECT_EQ(in_two(*model, {}, request, first, folder / "session").tokens, whole.tokens);
}

TEST(Session, ANewPromptFollowsTheOldTokens) {
  const test::TemporaryDirectory folder;
  const auto model = small_llama();
  EngineOptions options;
  options.deterministic = true;
  const Outcome first = run(*model, options, greedy(bytes("A question"), 9));
  Request next = greedy(bytes(" and more"), 9);
  next.resume = first.session;
  const Completion resumed = run(*model, options, next).answer;
  std::vector<int32_t> all = first.session->tokens;
  for (const int32_t id : bytes(" and more")) all.push_back(id);
  EXPECT_EQ(resumed.tokens, run(*model, options, greedy(all, 9)).answer.tokens);
}

class SessionFile : public testing::Test {
 protected:
  void SetUp() override {
    Request request = greedy(bytes("a session to be damaged"), 20);
    const Outcome one = run(*model_, options_, request);
    fingerprint_ = model_fingerprint(*model_);
    save_session(path_, *one.session, options_.cache, fingerprint_);
    contents_ = read_file(path_);
  }
  std::string error_of(std::string changed, bool fix_checksum = false) {
    if (fix_checksum && changed.size() >= 8) {
      const uint64_t sum = XXH3_64bits(changed.data(), changed.size() - 8);
      std::memcpy(changed.data() + changed.size() - 8, &sum, 8);
    }
    write_file(path_, changed);
    return test::error_of([&] { load_session(path_, *model_, options_.cache, fingerprint_); });
  }
  test::TemporaryDirectory folder_;
  std::string path_ = folder_ / "session";
  std::unique_ptr<Model> model_ = small_llama();
  EngineOptions options_;
  uint64_t fingerprint_ = 0;
  std::string contents_;
};

TEST_F(SessionFile, EveryDamageIsNoticed) {
  EXPECT_EQ(error_of(contents_), "(no error)");
  for (size_t i = 0; i < contents_.size(); i += i < 600 ? 1 : 97) {
    std::string changed = contents_;
    changed[i] = static_cast<char>(changed[i] ^ (1 << (i % 8)));
    EXPECT_NE(error_of(changed), "(no error)") << i;
  }
  for (size_t n = 0; n < contents_.size(); n += 1 + n / 7)
    EXPECT_NE(error_of(contents_.substr(0, n)), "(no error)") << n;
  EXPECT_EQ(error_of("QKVSESS1 but nothing of the kind"),
            path_ + ": the session is damaged: its checksum does not fit");
  EXPECT_EQ(error_of("something else entirely, long"),
            path_ + ": expected a session, which begins with QKVSESS1");
}

// With a checksum that fits, whatever the file says is checked: an error or a session, nothing else.
TEST_F(SessionFile, NothingIsBelievedBecauseTheChecksumFits) {
  Rng rng(3, 0);
  int refused = 0;
  for (int i = 0; i < 2000; ++i) {
    std::string changed = contents_;
    const size_t reach = i % 2 == 0 ? std::min<size_t>(700, changed.size()) : changed.size();
    for (uint64_t k = 0; k <= rng.below(4); ++k)
      changed[8 + rng.below(reach - 8)] = static_cast<char>(rng.below(256));
    if (i % 5 == 0) changed.resize(8 + rng.below(changed.size()));
    refused += error_of(changed, true) != "(no error)" ? 1 : 0;
  }
  EXPECT_GT(refused, 500);
}

TEST_F(SessionFile, AnotherModelOrCacheIsRefused) {
  const auto other = small_llama(8);
  EXPECT_NE(model_fingerprint(*other), fingerprint_);
  EXPECT_NE(test::error_of([&] {
              load_session(path_, *other, options_.cache, model_fingerprint(*other));
            }).find("a session of another model"),
            std::string::npos);
  CacheOptions cache;
  cache.k_type = DType::f16;
  EXPECT_EQ(
      test::error_of([&] { load_session(path_, *model_, cache, fingerprint_); }),
      path_ +
          ": a session with another cache: expected f16 keys, f32 values, pages of 32, window 0, sinks 0, "
          "found f32 keys, f32 values, pages of 32, window 0, sinks 0");
}

TEST_F(SessionFile, AFileThatCannotBeWrittenLeavesTheOldOne) {
  const Outcome one = run(*model_, options_, greedy(bytes("x"), 3));
  EXPECT_NE(
      test::error_of([&] { save_session(folder_ / "no/such/folder", *one.session, options_.cache, 1); }),
      "(no error)");
  EXPECT_EQ(read_file(path_), contents_);
}

}  // namespace
}  // namespace qkv
