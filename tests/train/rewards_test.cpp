// Rewards: what each kind is worth, how texts name them, and programs that misbehave.
#include "qkv/train/rewards.h"

#include <gtest/gtest.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "qkv/core/atomic_file.h"
#include "tests/engine/engine_support.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

using test::ByteTokenizer;
using test::error_of;

Rollout answer_of(const std::string& text, size_t prompt = 0) {
  Rollout rollout;
  rollout.prompt = prompt;
  rollout.tokens = test::bytes(text);
  rollout.tokens.push_back(ByteTokenizer::kEnd);
  rollout.text = text;
  rollout.ended = true;
  return rollout;
}

std::vector<Prompt> prompts_of(const std::string& lines) {
  return parse_prompts(lines, "p.jsonl");
}

double score(const std::string& reward, const std::string& answer,
             const std::string& record = R"({"prompt": "p", "answer": "a red kite"})",
             const JudgeOptions& options = {}) {
  std::vector<Rollout> rollouts = {answer_of(answer)};
  Rewards({reward}, options).judge(rollouts, prompts_of(record), ByteTokenizer(), nullptr);
  return rollouts[0].score;
}

TEST(Rewards, ExactAnswers) {
  EXPECT_EQ(score("exact", "A red kite."), 1);
  EXPECT_EQ(score("exact", "A blue kite."), 0);
  const char* sum = R"({"prompt": "3 + 4", "answer": "7"})";
  EXPECT_EQ(score("exact", "3 + 4 = 7. The answer is 7.", sum), 1);
  EXPECT_EQ(score("exact", "3 + 4 = 7. The answer is 8.", sum), 0);
  EXPECT_EQ(score("exact", "So it is seven", R"({"prompt": "p", "answer": 7})"), 1);
  EXPECT_EQ(score("exact", "even", R"({"prompt": "p", "accepted": ["odd", "even"], "answer": "odd"})"), 1);
  EXPECT_NE(error_of([] { score("exact", "x", R"({"prompt": "p"})"); }).find("p.jsonl:1: answer: expected"),
            std::string::npos);
}

TEST(Rewards, PatternsJsonAndLengths) {
  EXPECT_EQ(score("regex=^Sure[,!]", "Sure! It is."), 1);
  EXPECT_EQ(score("regex=^Sure[,!]", "No. Sure!"), 0);
  EXPECT_EQ(score("json", R"( {"a": [1, 2]} )"), 1);
  EXPECT_EQ(score("json", "```json\n{\"a\": 1}\n```"), 1);
  EXPECT_EQ(score("json", R"({"a": [1, 2})"), 0);
  EXPECT_EQ(score("json", ""), 0);
  // Tokens are bytes, and one ends the text.
  EXPECT_EQ(score("length=3-5", "abcd"), 1);
  EXPECT_DOUBLE_EQ(score("length=3-5", "abcdef"), 0.6);
  EXPECT_EQ(score("length=3-5", "abcdefghijklmnop"), 0);
  EXPECT_EQ(score("overlong=4-8", "abc"), 0);
  EXPECT_EQ(score("overlong=4-8", "abcde"), -0.5);
  EXPECT_EQ(score("overlong=4-8", "abcdefghijk"), -1);
}

TEST(Rewards, WeightsAddUpAndMetricsHaveNames) {
  std::vector<Rollout> rollouts = {answer_of("yes"), answer_of("no", 1)};
  Metrics metrics;
  Rewards({"2*regex=^y", "-0.5*regex=o", "json"}, {})
      .judge(rollouts, prompts_of("{\"prompt\": \"a\"}\n{\"prompt\": \"b\"}\n"), ByteTokenizer(), &metrics);
  EXPECT_EQ(rollouts[0].score, 2);
  EXPECT_EQ(rollouts[1].score, -0.5);
  const auto means = metrics.means();
  EXPECT_EQ(means.at("rewards/regex/mean"), 0.5);
  EXPECT_EQ(means.at("rewards/regex2/mean"), 0.5);
  EXPECT_EQ(means.at("rewards/json/mean"), 0);
  EXPECT_NEAR(means.at("rewards/regex/std"), std::sqrt(0.5), 1e-12);
}

TEST(Rewards, StepsAreScoredWhereTheyEnd) {
  Rollout rollout = answer_of("ab\ncd\nx");
  const std::vector<StepEnd> ends = step_ends(rollout, ByteTokenizer(), "\n");
  ASSERT_EQ(ends.size(), 3u);
  EXPECT_EQ(ends[0].token, 2);
  EXPECT_EQ(ends[0].text, "ab\n");
  EXPECT_EQ(ends[1].token, 5);
  EXPECT_EQ(ends[2].token, 7);
  EXPECT_EQ(ends[2].text, "ab\ncd\nx");
  // A separator at the end makes no empty step.
  const std::vector<StepEnd> closed = step_ends(answer_of("ab\ncd\n"), ByteTokenizer(), "\n");
  ASSERT_EQ(closed.size(), 2u);
  EXPECT_EQ(closed[1].token, 6);

  std::vector<Rollout> rollouts = {rollout};
  Rewards({"0.5*steps:regex=c", "regex=x"}, {})
      .judge(rollouts, prompts_of(R"({"prompt": "p"})"), ByteTokenizer(), nullptr);
  EXPECT_EQ(rollouts[0].score, 1);
  const std::vector<std::pair<int64_t, double>> expected = {{2, 0}, {5, 0.5}, {7, 0.5}};
  EXPECT_EQ(rollouts[0].step_scores, expected);
}

TEST(Rewards, ProgramsReadLinesAndPrintNumbers) {
  std::vector<Rollout> rollouts = {answer_of("aa"), answer_of("b\n\"", 1)};
  Rewards({"program=while read -r line; do echo \"${#line}\"; done"}, {})
      .judge(rollouts, prompts_of("{\"prompt\": \"p\", \"x\": 1}\n{\"prompt\": \"q\"}\n"), ByteTokenizer(),
             nullptr);
  EXPECT_EQ(rollouts[0].score, std::string(R"({"prompt":"p","x":1,"completion":"aa"})").size());
  EXPECT_EQ(rollouts[1].score, std::string(R"({"prompt":"q","completion":"b\n\""})").size());
  // More than a socket holds, by a program that answers at the end only.
  std::vector<Rollout> many(20000, answer_of(std::string(100, 'x')));
  Rewards({"program=cat > /dev/null; yes 0.25 | head -n 20000"}, {})
      .judge(many, prompts_of(R"({"prompt": "p"})"), ByteTokenizer(), nullptr);
  EXPECT_EQ(many.back().score, 0.25);
  // One that reads nothing.
  EXPECT_EQ(score("program=echo 3", "x"), 3);
}

std::string program_error(const std::string& command, double timeout = 60) {
  JudgeOptions options;
  options.program_timeout = timeout;
  return error_of([&] { score("program=" + command, "x", R"({"prompt": "p"})", options); });
}

TEST(Rewards, ProgramsThatFailAreOneSentence) {
  EXPECT_EQ(program_error("echo good"),
            "reward program 'echo good': line 1: expected a number, found 'good'");
  EXPECT_EQ(program_error("echo nan"), "reward program 'echo nan': line 1: expected a number, found 'nan'");
  EXPECT_EQ(program_error("true"), "reward program 'true': expected 1 numbers, one a line, found 0");
  EXPECT_EQ(program_error("echo 1; exit 3"),
            "reward program 'echo 1; exit 3': expected exit status 0, found 3");
  EXPECT_EQ(program_error("kill -9 $$"),
            "reward program 'kill -9 $$': expected exit status 0, found signal 9");
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(program_error("sleep 100", 0.2),
            "reward program 'sleep 100': expected an answer within 0.2 s, found none");
  EXPECT_EQ(program_error("exec >&-; sleep 100", 0.2),
            "reward program 'exec >&-; sleep 100': expected to end within 0.2 s, found it running");
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

TEST(Rewards, EnsemblesOfModels) {
  const std::vector<double> opinions = {1, 2, 6};
  EXPECT_DOUBLE_EQ(combined_scores(opinions, "mean", 1), 3);
  EXPECT_DOUBLE_EQ(combined_scores(opinions, "min", 1), 1);
  EXPECT_DOUBLE_EQ(combined_scores(opinions, "uncertainty", 0.5), 3 - 0.5 * 7);
}

TEST(Rewards, TextsThatAreNone) {
  const auto refused = [](const std::string& text) { return error_of([&] { Rewards({text}, {}); }); };
  EXPECT_EQ(
      refused("exakt"),
      "reward 'exakt': expected one of exact, regex, json, length, overlong, model, program, found 'exakt'; "
      "did you mean 'exact'?");
  EXPECT_EQ(refused("x*exact"), "reward 'x*exact': expected WEIGHT*KIND with a number, found 'x'");
  EXPECT_EQ(refused("regex"), "reward 'regex': expected regex=ARGUMENT, found none");
  EXPECT_EQ(refused("json=x"), "reward 'json=x': expected no argument, found one");
  EXPECT_EQ(refused("length=9"), "reward 'length': expected LOW-HIGH, found '9'");
  EXPECT_EQ(refused("length=9-3"), "reward 'length': expected LOW-HIGH, found '9-3'");
  EXPECT_NE(refused("regex=(").find("reward 'regex'"), std::string::npos);
  EXPECT_EQ(error_of([] { Rewards({}, {}); }),
            "rewards: expected at least one (exact, regex=PATTERN, ...), found none");
}

TEST(Prompts, AreReadWithTheirRecords) {
  const auto prompts = parse_prompts(
      "{\"prompt\": \"a\", \"answer\": 3}\r\n\n{\"messages\": [{\"role\": \"user\", \"content\": \"b\"}, "
      "{\"role\": "
      "\"assistant\", \"content\": \"c\"}]}\n",
      "f.jsonl");
  ASSERT_EQ(prompts.size(), 2u);
  EXPECT_EQ(prompts[0].text, "a");
  EXPECT_EQ(prompts[0].record->at("answer"), 3);
  EXPECT_EQ(prompts[1].where, "f.jsonl:3");
  EXPECT_EQ(prompts[1].text, "b");
  EXPECT_EQ(prompts[1].said.messages->size(), 1u);
  const auto refused = [](const std::string& text) {
    return error_of([&] { parse_prompts(text, "f.jsonl"); });
  };
  EXPECT_EQ(refused("{\"promt\": \"a\"}"),
            "f.jsonl:1: prompt: expected a text or messages, found no such field among promt; did you mean "
            "'promt'?");
  EXPECT_EQ(refused("{\"prompt\": \" \"}"), "f.jsonl:1: prompt: expected a text, found an empty one");
  EXPECT_EQ(refused("{\"prompt\": 3}"),
            "f.jsonl:1: prompt: expected a text or a list of messages, found number");
  EXPECT_EQ(refused("[1]"), "f.jsonl:[0]: record: expected an object, found number");
  EXPECT_EQ(refused(""), "f.jsonl: expected prompts, found none");
  std::vector<Prompt> some = parse_prompts("{\"prompt\": \"ab\"}\n{\"prompt\": \"abcdef\"}\n", "f.jsonl");
  EXPECT_EQ(tokenize_prompts(some, ByteTokenizer(), false, 3), 1);
  EXPECT_EQ(some[0].tokens, test::bytes("ab"));
  EXPECT_EQ(error_of([&] { tokenize_prompts(some, ByteTokenizer(), false, 1); }),
            "data: no prompt is left: all 1 have more than 1 tokens");
}

}  // namespace
}  // namespace qkv
