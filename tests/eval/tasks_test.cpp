#include "qkv/eval/tasks.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "qkv/core/atomic_file.h"
#include "qkv/eval/task_readers.h"
#include "tests/eval/eval_support.h"
#include "tests/support/test_paths.h"

namespace qkv::test {
namespace {

class TaskFiles : public testing::Test {
 protected:
  std::string file(const std::string& name, std::string_view text) {
    write_file(directory_ / name, text);
    return directory_ / name;
  }
  TemporaryDirectory directory_;
};

TEST_F(TaskFiles, ArcInAllLayouts) {
  const std::string hub =
      R"({"question": "Why?", "choices": {"text": ["a", "b c"], "label": ["1", "2"]}, "answerKey": "2"})";
  const std::string authors =
      R"({"question": {"stem": "Why?", "choices": [{"text": "a", "label": "A"}, {"text": "b c", "label": "B"}]}, "answerKey": "B"})";
  const std::string instruction =
      R"([{"instruction": "Please choose the correct answer to the question: Why?\n\nAnswer1: a Answer2: b c\n\nAnswer format: answer1/answer2", "answer": "answer2"}])";
  for (const std::string& text : {hub, authors, instruction}) {
    const auto questions = read_arc(file("arc.json", text));
    ASSERT_EQ(questions.size(), 1u);
    EXPECT_EQ(questions[0].contexts, std::vector<std::string>{"Question: Why?\nAnswer:"});
    EXPECT_EQ(questions[0].continuations, (std::vector<std::string>{" a", " b c"}));
    EXPECT_EQ(questions[0].answers, (std::vector<std::string>{"a", "b c"}));
    EXPECT_EQ(questions[0].correct, 1u);
  }
}

TEST_F(TaskFiles, HellaswagIsCleaned) {
  const auto text =
      read_hellaswag(file("h.txt", "Roof: A man. he\n2\none\ntwo [title] x\nthree [substeps] y\nfour\n"));
  ASSERT_EQ(text.size(), 1u);
  EXPECT_EQ(text[0].correct, 2u);
  EXPECT_EQ(text[0].answers, (std::vector<std::string>{"one", "two. x", "three y", "four"}));
  const auto json = read_hellaswag(file(
      "h.jsonl",
      R"({"activity_label": "Roof", "ctx_a": "A man sits.", "ctx_b": "he", "endings": ["goes", "stays", "x", "y"], "label": "1"})"));
  EXPECT_EQ(json[0].contexts[0], "Roof: A man sits. He");
  EXPECT_EQ(json[0].continuations[1], " stays");
}

TEST_F(TaskFiles, WinograndePutsTheOptionsIntoTheContext) {
  const auto questions = read_winogrande(file(
      "w.jsonl",
      R"({"sentence": "Ann thanked Bea, for _ had helped.", "option1": "Ann", "option2": "Bea", "answer": "2"})"));
  EXPECT_EQ(questions[0].contexts,
            (std::vector<std::string>{"Ann thanked Bea, for Ann", "Ann thanked Bea, for Bea"}));
  EXPECT_EQ(questions[0].continuations, std::vector<std::string>{" had helped."});
  EXPECT_EQ(questions[0].correct, 1u);
}

TEST_F(TaskFiles, PiqaAndLambada) {
  const auto piqa = read_piqa(
      file("p.jsonl", R"({"goal": "Boil water.", "sol1": "heat it", "sol2": "cool it", "label": 0})"));
  EXPECT_EQ(piqa[0].contexts[0], "Question: Boil water.\nAnswer:");
  const auto lambada =
      read_lambada(file("l.jsonl", "{\"text\": \"one two three\"}\n\n{\"text\": \"four five\"}\n"));
  ASSERT_EQ(lambada.size(), 2u);
  EXPECT_EQ(lambada[0].contexts[0], "one two");
  EXPECT_EQ(lambada[0].continuations[0], " three");
}

TEST_F(TaskFiles, BadItemsAreNamed) {
  EXPECT_NE(
      error_of([&] { read_arc(file("a.jsonl", "{\"question\": 3}")); }).find("a.jsonl:1: key 'question'"),
      std::string::npos);
  EXPECT_NE(error_of([&] {
              read_lambada(file("l.jsonl", "{\"text\": \"a b\"}\n{\"text\": \"word\"}"));
            }).find("l.jsonl:2: key 'text'"),
            std::string::npos);
  EXPECT_NE(error_of([&] {
              read_winogrande(
                  file("w.jsonl", R"({"sentence": "none", "option1": "a", "option2": "b", "answer": "1"})"));
            }).find("a blank '_'"),
            std::string::npos);
  EXPECT_NE(error_of([&] {
              read_piqa(file("p.jsonl", R"({"goal": "g", "sol1": "a", "sol2": "b", "label": 7})"));
            }).find("expected 0 to 1, found 7"),
            std::string::npos);
  EXPECT_NE(error_of([&] { read_hellaswag(file("h.txt", "only\nfour\nlines\nhere\n")); }).find("six lines"),
            std::string::npos);
  EXPECT_NE(error_of([&] { read_lambada(file("l.gz", "\x1f\x8bxx")); }).find("compressed"),
            std::string::npos);
  EXPECT_NE(error_of([&] { read_lambada(file("empty", "")); }).find("found none"), std::string::npos);
  EXPECT_NE(error_of([] { task_named("arc_esay"); }).find("did you mean 'arc_easy'"), std::string::npos);
}

TEST_F(TaskFiles, ScoresAreThoseOfTheLikeliestChoice) {
  const Bundle bundle = byte_bundle();
  std::string text;
  for (const char* question : {"x", "yy", "zzz"}) {
    text +=
        fmt::format(R"({{"goal": "{}", "sol1": "ab", "sol2": "a longer answer", "label": 1}})", question) +
        "\n";
  }
  const TaskResult result = run_task(bundle, task_named("piqa"), file("p.jsonl", text));
  double acc = 0, acc_norm = 0;
  for (const char* question : {"x", "yy", "zzz"}) {
    double sums[2] = {0, 0};
    const std::string answers[2] = {"ab", "a longer answer"};
    for (int c = 0; c < 2; ++c) {
      const auto all = plain_log_probs(*bundle.model,
                                       bytes(fmt::format("Question: {}\nAnswer: {}", question, answers[c])));
      for (size_t t = all.size() - answers[c].size() - 1; t < all.size(); ++t) sums[c] += all[t];
    }
    acc += sums[1] > sums[0] ? 1.0 / 3 : 0;
    acc_norm += sums[1] / 15 > sums[0] / 2 ? 1.0 / 3 : 0;
  }
  EXPECT_EQ(result.questions, 3);
  EXPECT_DOUBLE_EQ(result.chance, 0.5);
  ASSERT_EQ(result.metrics.size(), 2u);
  EXPECT_NEAR(result.metrics[0].value, acc, 1e-9);
  EXPECT_NEAR(result.metrics[1].value, acc_norm, 1e-9);
}

TEST_F(TaskFiles, LambadaGivesPerplexityOfTheLastWord) {
  const Bundle bundle = byte_bundle();
  const TaskResult result =
      run_task(bundle, task_named("lambada"),
               file("l.jsonl", "{\"text\": \"one two three\"}\n{\"text\": \"four five\"}\n"));
  double sum = 0;
  const auto a = plain_log_probs(*bundle.model, bytes("one two three")),
             b = plain_log_probs(*bundle.model, bytes("four five"));
  for (size_t t = a.size() - 6; t < a.size(); ++t) sum += a[t];
  for (size_t t = b.size() - 5; t < b.size(); ++t) sum += b[t];
  ASSERT_EQ(result.metrics.size(), 2u);
  EXPECT_NEAR(result.metrics[1].value, std::exp(-sum / 2), 1e-3 * std::exp(-sum / 2));
}

TEST(RealTasks, EveryItemOfTheDistributionsIsRead) {
  const std::string directory = shared("data/datasets/");
  if (!std::filesystem::exists(directory + "piqa-test.json")) GTEST_SKIP() << "no data at " << directory;
  EXPECT_EQ(read_lambada(directory + "lambada_test.jsonl").size(), 5153u);
  EXPECT_EQ(read_arc(directory + "arc-easy-test.json").size(), 2376u);
  EXPECT_EQ(read_arc(directory + "arc-challenge-test.json").size(), 1172u);
  EXPECT_EQ(read_piqa(directory + "piqa-test.json").size(), 1838u);
  const auto winogrande = read_winogrande(directory + "winogrande-test.json");
  EXPECT_EQ(winogrande.size(), 1267u);
  for (const auto& question : winogrande) EXPECT_EQ(question.choices(), 2u);
}

}  // namespace
}  // namespace qkv::test
