#include "qkv/eval/answers.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "qkv/core/atomic_file.h"
#include "qkv/core/error.h"
#include "qkv/data/tales.h"

namespace qkv {
namespace {

constexpr int64_t kBatch = 32;

AnswerScore finish(AnswerScore score) {
  const auto n = static_cast<double>(std::max<int64_t>(1, score.questions));
  score.chance /= n;
  score.standard_error = std::sqrt(score.accuracy() * (1 - score.accuracy()) / n);
  return score;
}

}  // namespace

std::vector<AnswerQuestion> read_questions(const std::string& path, int64_t limit) {
  const std::string text = read_file(path);
  std::vector<AnswerQuestion> all;
  int64_t line_number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    ++line_number;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string where = fmt::format("{}:{}", path, line_number);
    const Json json = parse_json(line, where);
    const JsonView view(json, where);
    AnswerQuestion question;
    question.kind = view.string_or("kind", "question");
    question.prompt = view.string("prompt");
    question.accepted = view.strings_or_empty("accepted");
    if (question.accepted.empty()) question.accepted = {view.string("answer")};
    question.numeric = view.boolean_or("numeric", false);
    question.chance = view.number_or("chance", 0);
    all.push_back(std::move(question));
  }
  require(!all.empty(), "{}: expected questions, found none", path);
  if (limit <= 0 || limit >= static_cast<int64_t>(all.size())) return all;
  std::vector<AnswerQuestion> chosen;
  for (int64_t i = 0; i < limit; ++i)
    chosen.push_back(std::move(all[static_cast<size_t>(i * static_cast<int64_t>(all.size()) / limit)]));
  return chosen;
}

AnswerReport score_answers(const Bundle& bundle, const std::vector<AnswerQuestion>& questions,
                           int64_t max_new_tokens, const std::function<void(int64_t)>& progress) {
  require(bundle.tokenizer != nullptr, "{}: answering questions needs a tokenizer", bundle.path);
  EngineOptions options;
  options.max_sequences = kBatch;
  Engine engine(*bundle.model, bundle.tokenizer.get(), options);
  AnswerReport report;
  std::map<std::string, AnswerScore> kinds;
  report.total.kind = "all";
  for (size_t begin = 0; begin < questions.size(); begin += kBatch) {
    const size_t end = std::min(questions.size(), begin + kBatch);
    std::vector<Request> requests;
    for (size_t i = begin; i < end; ++i) {
      Request request;
      request.prompt = bundle.tokenizer->encode(questions[i].prompt);
      request.sampler.temperature = 0;
      request.max_new_tokens = max_new_tokens;
      request.stop = {"\n"};
      requests.push_back(std::move(request));
    }
    const std::vector<Completion> completions = complete(engine, std::move(requests));
    for (size_t i = begin; i < end; ++i) {
      const AnswerQuestion& question = questions[i];
      const std::string& given = completions[i - begin].text;
      const bool correct = tales::matches_answer(question.accepted, question.numeric, given);
      report.samples.push_back({question.prompt, question.accepted.front(), given, correct});
      for (AnswerScore* score : {&kinds[question.kind], &report.total}) {
        ++score->questions;
        score->correct += correct ? 1 : 0;
        score->chance += question.chance;
      }
    }
    if (progress) progress(static_cast<int64_t>(end));
  }
  for (auto& [kind, score] : kinds) {
    score.kind = kind;
    report.by_kind.push_back(finish(score));
  }
  report.total = finish(report.total);
  return report;
}

}  // namespace qkv
