// Which tokens of a record are learned: the assistant's words and the end of its turn, and nothing else.
#include "qkv/data/chat_tokens.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "qkv/core/atomic_file.h"
#include "qkv/core/error.h"
#include "qkv/data/sample_batches.h"
#include "qkv/tensor/ops.h"
#include "qkv/text/bpe_trainer.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

std::unique_ptr<Tokenizer> small_tokenizer(test::TemporaryDirectory& directory) {
  write_file(directory / "text.txt",
             "the cat sat on the mat. Question: what is it?\nAnswer: the red cat and the dog\n");
  BpeTrainerOptions options;
  options.vocab_size = 300;
  options.bos_token = "<|endoftext|>";
  return train_bpe(std::vector<std::string>{directory / "text.txt"}, options);
}

Record record_of(const std::string& line) {
  return parse_records(line, "f.jsonl").records[0];
}

// What is learned, in the tokenizer's own words, stretches separated by '|'.
std::string learned(const Tokenizer& tokenizer, const TokenSample& sample) {
  std::string text;
  for (size_t i = 0; i < sample.tokens.size(); ++i) {
    if (!sample.learned[i]) continue;
    if (!text.empty() && !sample.learned[i - 1]) text += "|";
    text += tokenizer.token_bytes(sample.tokens[i]);
  }
  return text;
}

class PlainChats : public testing::Test {
 protected:
  test::TemporaryDirectory directory_;
  std::unique_ptr<Tokenizer> tokenizer_ = small_tokenizer(directory_);
  ChatTokens tokens_{*tokenizer_};
};

TEST_F(PlainChats, AssistantTurnsAndTheirEnd) {
  const Record record = record_of(
      R"({"messages": [{"role": "user", "content": "what is it?"}, {"role": "assistant", "content": "the cat"}, {"role": "user", "content": "Answer: dog"}, {"role": "assistant", "content": "no"}]})");
  const TokenSample sample = tokens_.sample(record);
  EXPECT_TRUE(tokens_.has_plain_template());
  EXPECT_EQ(tokenizer_->decode(sample.tokens, false),
            "Question: what is it?\nAnswer: the cat<|endoftext|>\nQuestion: Answer: dog\nAnswer: "
            "no<|endoftext|>\n");
  EXPECT_EQ(learned(*tokenizer_, sample), " the cat<|endoftext|>| no<|endoftext|>");
}

TEST_F(PlainChats, CompletionsAndTextsEndWithEos) {
  EXPECT_EQ(learned(*tokenizer_, tokens_.sample(record_of(R"({"prompt": "the cat", "completion": " sat"})"))),
            " sat<|endoftext|>");
  EXPECT_EQ(learned(*tokenizer_, tokens_.sample(record_of(R"({"text": "the cat sat"})"))),
            "the cat sat<|endoftext|>");
  const Record pair = as_chat(record_of(R"({"prompt": "what?", "chosen": "cat", "rejected": "dog"})"));
  EXPECT_EQ(learned(*tokenizer_, tokens_.sample(pair)), " cat<|endoftext|>");
  EXPECT_EQ(learned(*tokenizer_, tokens_.rejected(pair)), " dog<|endoftext|>");
}

TEST_F(PlainChats, GenerationMarksDecideWhereATemplateHasThem) {
  tokenizer_->set_chat_template(
      "{% for m in messages %}{{ m.role }}:\n{% generation %}{{ m.content }}{% endgeneration %}\n{% endfor "
      "%}");
  const ChatTokens marked(*tokenizer_);
  const Record record = record_of(
      R"({"messages": [{"role": "user", "content": "what"}, {"role": "assistant", "content": "cat"}]})");
  EXPECT_EQ(learned(*tokenizer_, marked.sample(record)), "what|cat");
}

TEST_F(PlainChats, ATurnThatTheTemplateDropsIsAnErrorWithItsPlace) {
  tokenizer_->set_chat_template(
      "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}");
  const ChatTokens dropping(*tokenizer_);
  const Record record = record_of(
      R"({"messages": [{"role": "user", "content": "what"}, {"role": "assistant", "content": "cat"}]})");
  EXPECT_NE(test::error_of([&] {
              dropping.sample(record);
            }).find("f.jsonl:1: messages[1]: expected the template to show what the assistant says"),
            std::string::npos);
}

TEST_F(PlainChats, BatchesPackSamplesAsSequencesOfTheirOwn) {
  std::vector<TokenSample> samples = {{{1, 2, 3, 4}, {0, 0, 1, 1}}, {{5, 6, 7}, {1, 1, 1}}, {{8, 9}, {0, 1}}};
  Batch batch;
  for (const TokenSample& sample : samples) append_sample(batch, sample);
  EXPECT_EQ(batch.pass.sequences.offsets, (std::vector<int64_t>{0, 4, 7, 9}));
  EXPECT_EQ(batch.pass.positions, (std::vector<int32_t>{0, 1, 2, 3, 0, 1, 2, 0, 1}));
  constexpr int32_t no = ops::kIgnore;
  EXPECT_EQ(batch.targets, (std::vector<int32_t>{no, 3, 4, no, 6, 7, no, 9, no}));
  EXPECT_EQ(batch.counted, 5);
}

TEST_F(PlainChats, EveryEpochTakesEachSampleOnce) {
  std::vector<TokenSample> samples;
  for (int32_t i = 0; i < 10; ++i)
    samples.push_back({std::vector<int32_t>(static_cast<size_t>(2 + i % 3), i),
                       std::vector<char>(static_cast<size_t>(2 + i % 3), 1)});
  SampleBatches batches(samples, 7, 1), again(samples, 7, 1);
  DataCursor cursor;
  std::vector<int> seen(10, 0);
  while (cursor.epoch == 0) {
    const DataCursor before = cursor;
    const Batch batch = batches.next(cursor);
    if (cursor.epoch > 0) break;
    EXPECT_LE(batch.tokens.size(), 7u);
    for (size_t s = 0; s + 1 < batch.pass.sequences.offsets.size(); ++s)
      ++seen[static_cast<size_t>(batch.tokens[static_cast<size_t>(batch.pass.sequences.offsets[s])])];
    DataCursor resumed = before;
    EXPECT_EQ(again.next(resumed).tokens, batch.tokens) << "a batch is a function of the cursor";
  }
  EXPECT_EQ(seen, std::vector<int>(10, 1));
}

TEST_F(PlainChats, LongSamplesAreDroppedCutOrRefused) {
  const auto fresh = [] { return std::vector<TokenSample>{{{1, 2, 3, 4}, {0, 0, 1, 1}}, {{5, 6}, {0, 1}}}; };
  std::vector<std::string> where = {"f:1", "f:2"};
  auto dropped = fresh();
  auto names = where;
  EXPECT_EQ(limit_samples(dropped, names, 3, Overlong::drop).dropped, 1);
  EXPECT_EQ(names, (std::vector<std::string>{"f:2"}));
  auto cut = fresh();
  names = where;
  EXPECT_EQ(limit_samples(cut, names, 3, Overlong::cut).cut, 1);
  EXPECT_EQ(cut[0].tokens.size(), 3u);
  auto refused = fresh();
  names = where;
  EXPECT_NE(test::error_of([&] {
              limit_samples(refused, names, 3, Overlong::error);
            }).find("f:1: expected at most 3 tokens, found 4"),
            std::string::npos);
  std::vector<TokenSample> nothing = {{{1, 2}, {0, 0}}};
  names = {"f:1"};
  EXPECT_NE(test::error_of([&] {
              limit_samples(nothing, names, 3, Overlong::drop);
            }).find("nothing is left to learn"),
            std::string::npos);
}

// A real vocabulary with a real template: tool calls with what the template puts around them.
TEST(RealChats, QwensToolCallsAreLearnedWhole) {
  const std::string vocabulary = test::shared("data/tokenizers/qwen"),
                    source = test::shared("data/templates/Qwen-Qwen2.5-7B-Instruct.jinja");
  if (!std::filesystem::exists(vocabulary) || !std::filesystem::exists(source))
    GTEST_SKIP() << "no vocabulary at " << vocabulary;
  std::unique_ptr<Tokenizer> tokenizer;
  try {
    tokenizer = load_tokenizer(vocabulary);
  } catch (const Error& error) {
    GTEST_SKIP() << error.what();
  }
  if (!tokenizer->token_to_id("<|im_end|>")) GTEST_SKIP() << "the vocabulary has no <|im_end|>";
  tokenizer->set_chat_template(read_file(source));
  const ChatTokens tokens(*tokenizer);
  const Record record = record_of(
      R"({"messages": [{"role": "user", "content": "Weather?"}, {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}]}, {"role": "tool", "content": "rain"}, {"role": "assistant", "content": "It rains <|im_end|>."}], "tools": [{"type": "function", "function": {"name": "weather"}}]})");
  EXPECT_EQ(learned(*tokenizer, tokens.sample(record)),
            "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": "
            "\"Oslo\"}}\n</tool_call><|im_end|>|It rains <|im_end|>.<|im_end|>");
}

}  // namespace
}  // namespace qkv
