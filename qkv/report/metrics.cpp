// Reading metrics.jsonl.

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "qkv/core/atomic_file.h"
#include "qkv/core/error.h"
#include "qkv/report/training_report.h"

namespace qkv {
namespace {

// Drops the records from `step` on: a resumed run is writing them again.
template <typename Record>
int64_t drop_from(std::vector<Record>& records, int64_t step) {
  int64_t dropped = 0;
  for (; !records.empty() && records.back().step >= step; ++dropped) records.pop_back();
  return dropped;
}

class Reader {
 public:
  explicit Reader(TrainingReport& report) : report_(report) {}

  void add(const JsonView& line) {
    const std::string kind = line.string("kind");
    if (kind == "train") {
      add_train(line);
    } else if (kind == "eval") {
      add_eval(line);
    } else if (kind == "event") {
      report_.events.push_back({line.integer("step"), line.string("text")});
    }
  }

 private:
  static void require_loss(const JsonView& line) {
    require(line.json().contains("loss"), "{}: key 'loss': expected a number or null, found nothing",
            line.where());
  }

  void add_train(const JsonView& line) {
    require_loss(line);
    TrainPoint point;
    point.step = line.integer("step");
    point.tokens = line.integer_or("tokens", 0);
    point.loss = line.number_or("loss", kUnknown);
    point.learning_rate = line.number_or("lr", kUnknown);
    point.grad_norm = line.number_or("grad_norm", kUnknown);
    point.tokens_per_second = line.number_or("tokens_per_second", kUnknown);
    point.mfu = line.number_or("mfu", kUnknown);
    point.memory_bytes = line.number_or("memory_bytes", kUnknown);
    const double elapsed = line.number_or("elapsed_seconds", kUnknown);
    auto& train = report_.train;
    if (!train.empty() && point.step <= train.back().step) {
      report_.replaced_records += drop_from(train, point.step) + drop_from(report_.eval, point.step);
    }
    // A clock that reads less than before the resume started again at zero.
    const double before = train.empty() ? 0 : train.back().elapsed_seconds;
    if (elapsed + clock_offset_ < before) clock_offset_ = before;
    point.elapsed_seconds = elapsed + clock_offset_;
    train.push_back(point);
  }

  void add_eval(const JsonView& line) {
    require_loss(line);
    EvalPoint point;
    point.step = line.integer("step");
    point.tokens = line.integer_or("tokens", 0);
    point.loss = line.number_or("loss", kUnknown);
    point.perplexity = line.number_or("perplexity", kUnknown);
    point.best = line.boolean_or("best", false);
    report_.replaced_records += drop_from(report_.eval, point.step);
    report_.eval.push_back(point);
  }

  TrainingReport& report_;
  double clock_offset_ = 0;
};

}  // namespace

TrainingReport read_metrics(const std::string& metrics_jsonl) {
  const std::string text = read_file(metrics_jsonl);
  TrainingReport report;
  Reader reader(report);
  int64_t number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = std::string_view(text).substr(begin, end - begin);
    const bool ended = end < text.size();
    begin = end + 1;
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string where = fmt::format("{}:{}", metrics_jsonl, number);
    Json json;
    try {
      json = parse_json(line, where);
    } catch (const Error&) {
      if (!ended) break;  // cut short by a crash
      throw;
    }
    reader.add(JsonView(json, where));
  }
  return report;
}

}  // namespace qkv
