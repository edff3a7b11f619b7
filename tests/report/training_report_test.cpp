#include "qkv/report/training_report.h"

#include <gmock/gmock.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "html_check.h"
#include "qkv/core/atomic_file.h"
#include "qkv/core/error.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

using test::error_of;
using test::markup_fault;
using testing::HasSubstr;
using testing::Not;

std::string train_line(int step, double loss, double elapsed) {
  return Json{{"kind", "train"},
              {"step", step},
              {"tokens", step * 512},
              {"loss", loss},
              {"lr", 3e-4},
              {"grad_norm", 1.5},
              {"tokens_per_second", 2000.0},
              {"mfu", nullptr},
              {"memory_bytes", 3221225472},
              {"elapsed_seconds", elapsed}}
             .dump() +
         "\n";
}

std::string eval_line(int step, double loss) {
  return Json{{"kind", "eval"},
              {"step", step},
              {"tokens", step * 512},
              {"loss", loss},
              {"perplexity", std::exp(loss)},
              {"best", true}}
             .dump() +
         "\n";
}

class Metrics : public testing::Test {
 protected:
  std::string file(const std::string& text, const std::string& name = "metrics.jsonl") {
    const std::string path = directory_ / name;
    write_file(path, text);
    return path;
  }
  TrainingReport read(const std::string& text) { return read_metrics(file(text)); }
  test::TemporaryDirectory directory_;
};

TEST_F(Metrics, ReadsEveryKind) {
  const auto report = read(train_line(1, 4.5, 2) + "\n" + eval_line(1, 4.25) +
                           "{\"kind\":\"event\",\"step\":1,\"text\":\"saved\"}\n" +
                           "{\"kind\":\"later\",\"anything\":[1]}\n");
  ASSERT_EQ(report.train.size(), 1u);
  EXPECT_EQ(report.train[0].tokens, 512);
  EXPECT_EQ(report.train[0].loss, 4.5);
  EXPECT_EQ(report.train[0].learning_rate, 3e-4);
  EXPECT_EQ(report.train[0].memory_bytes, 3221225472.0);
  EXPECT_TRUE(std::isnan(report.train[0].mfu));
  ASSERT_EQ(report.eval.size(), 1u);
  EXPECT_TRUE(report.eval[0].best);
  ASSERT_EQ(report.events.size(), 1u);
  EXPECT_EQ(report.events[0].text, "saved");
}

TEST_F(Metrics, ALossThatIsNotFiniteIsNull) {
  EXPECT_TRUE(std::isnan(read("{\"kind\":\"train\",\"step\":1,\"loss\":null}\n").train.at(0).loss));
}

TEST_F(Metrics, OnlyTheLastLineMayBeCutShort) {
  const std::string half = "{\"kind\":\"train\",\"st";
  EXPECT_EQ(read(train_line(1, 4, 1) + half).train.size(), 1u);
  EXPECT_THAT(error_of([&] { read(train_line(1, 4, 1) + half + "\n"); }),
              HasSubstr("metrics.jsonl:2: not valid JSON"));
  EXPECT_THAT(error_of([&] { read(half + "\n" + train_line(1, 4, 1)); }),
              HasSubstr("metrics.jsonl:1: not valid JSON"));
  EXPECT_EQ(read("").train.size(), 0u);
  std::string unended = train_line(1, 4, 1);
  unended.pop_back();
  EXPECT_EQ(read(unended).train.size(), 1u);
}

TEST_F(Metrics, ErrorsNameTheLineAndTheKey) {
  EXPECT_THAT(error_of([&] { read("\n[1]\n"); }),
              HasSubstr("metrics.jsonl:2: top level: expected an object"));
  EXPECT_THAT(error_of([&] { read("{\"step\":1}\n"); }), HasSubstr("metrics.jsonl:1: key 'kind'"));
  EXPECT_THAT(error_of([&] { read("{\"kind\":\"train\",\"loss\":1}\n"); }),
              HasSubstr("metrics.jsonl:1: key 'step': expected an integer"));
  EXPECT_THAT(error_of([&] { read("{\"kind\":\"train\",\"step\":1}\n"); }),
              HasSubstr("metrics.jsonl:1: key 'loss'"));
  EXPECT_THAT(error_of([&] { read("{\"kind\":\"eval\",\"step\":1,\"loss\":\"low\"}\n"); }),
              HasSubstr("key 'loss': expected a number, found \"low\""));
  EXPECT_THAT(error_of([&] { read_metrics(directory_ / "absent.jsonl"); }), HasSubstr("absent.jsonl"));
}

TEST_F(Metrics, AResumedRunReplacesWhatItTrainsAgain) {
  std::string text;
  for (int step = 1; step <= 6; ++step) text += train_line(step, 10 - step, step * 10);
  text += eval_line(3, 7.5) + eval_line(6, 4.5);
  text += "{\"kind\":\"event\",\"step\":4,\"text\":\"resumed\"}\n";
  const std::string restarted = text + train_line(5, 100, 8) + train_line(6, 101, 16);
  const auto report = read(restarted);
  ASSERT_EQ(report.train.size(), 6u);
  EXPECT_EQ(report.train[4].loss, 100);
  EXPECT_EQ(report.train[4].elapsed_seconds, 48);  // the clock began again at the resume
  EXPECT_EQ(report.train[5].elapsed_seconds, 56);
  ASSERT_EQ(report.eval.size(), 1u);
  EXPECT_EQ(report.eval[0].step, 3);
  EXPECT_EQ(report.replaced_records, 3);
  EXPECT_EQ(read(text + train_line(5, 100, 50)).train.back().elapsed_seconds, 50);  // the clock went on
}

TEST_F(Metrics, WritesAPage) {
  std::string text;
  for (int step = 1; step <= 400; ++step) {
    text += train_line(step, 8.0 / std::sqrt(step), step);
    if (step % 100 == 0) text += eval_line(step, step == 300 ? 1.5 : 2.0);
  }
  TrainingReport report = read(text);
  report.title = "A <run>";
  report.model = {{"parameters", "12M"}};
  report.config = std::make_shared<const Json>(Json{{"optimizer", {{"lr", 3e-4}}}, {"name", "adamw"}});
  report.checkpoints = {{300, "step-300.safetensors", 1048576, 1.5, true}};
  report.final_numbers = {{"accuracy", "0.5"}};
  report.samples = {{400, "Once", " upon\na time"}};
  const std::string path = directory_ / "report.html";
  write_training_report(path, report);
  const std::string html = read_file(path);
  EXPECT_EQ(html, training_report_html(report));
  EXPECT_EQ(markup_fault(html), "");
  EXPECT_EQ(test::occurrences(html, "<figure"), 5u);
  for (const char* part : {"A &lt;run&gt;", "optimizer.lr", "0.0003", "<dd>1.5000<small>step 300</small>",
                           "3.00 GiB", "best 1.5000", "205k", "<dd>6m40s</dd>", "step-300.safetensors",
                           " upon\na time", "train, smoothed", "accuracy"}) {
    EXPECT_NE(html.find(part), std::string::npos) << part;
  }
  EXPECT_THAT(html, Not(HasSubstr("FLOPs utilization")));  // never recorded
  EXPECT_THAT(html, Not(HasSubstr("http:")));
}

TEST_F(Metrics, AnEmptyRunIsStillAPage) {
  EXPECT_EQ(markup_fault(training_report_html(read(""))), "");
  EXPECT_EQ(markup_fault(training_report_html(read("{\"kind\":\"train\",\"step\":1,\"loss\":null}\n"))), "");
  EXPECT_EQ(markup_fault(training_report_html(read(eval_line(0, 3)))), "");
}

TEST_F(Metrics, ComparesRuns) {
  std::string ours, theirs;
  for (int step = 1; step <= 50; ++step) {
    ours += train_line(step, 5.0 / step, step);
    theirs += train_line(step, 5.0 / step + (step == 50 ? 0.25 : 0), step * 2);
  }
  const std::string a = file(ours, "a.jsonl"), b = file(theirs, "b.jsonl"),
                    page = directory_ / "compare.html";
  write_comparison_report(page, {{"ours <1>", a}, {"PyTorch", b}});
  const std::string html = read_file(page);
  EXPECT_EQ(markup_fault(html), "");
  for (const char* part : {"ours &lt;1&gt;", "PyTorch", ">0.25</td>", "0.005", "Difference in training loss",
                           "Training loss by wall time"}) {
    EXPECT_NE(html.find(part), std::string::npos) << part;
  }
  EXPECT_THAT(html, Not(HasSubstr("Validation loss")));
  EXPECT_THAT(error_of([&] { write_comparison_report(page, {}); }), HasSubstr("at least one run"));
  EXPECT_THAT(error_of([&] {
                write_comparison_report(page, {{"x", directory_ / "none"}});
              }),
              HasSubstr("none"));
  write_comparison_report(page, {{"empty", file("", "c.jsonl")}});
  EXPECT_EQ(markup_fault(read_file(page)), "");
}

}  // namespace
}  // namespace qkv
