// Documents, questions and instructions by index.
#include "qkv/data/tales/corpus.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "qkv/core/error.h"
#include "qkv/core/json.h"
#include "qkv/data/tales/arithmetic.h"
#include "qkv/data/tales/facts.h"
#include "qkv/data/tales/instructions.h"
#include "qkv/data/tales/questions.h"
#include "qkv/data/tales/render.h"
#include "qkv/data/tales/stories.h"

namespace qkv::tales {
namespace {

std::array<double, kKinds> shares(const Options& options) {
  return {options.story_share, options.question_share, options.arithmetic_share, options.instruction_share,
          options.fact_share};
}

// Bytes of an average document of the kind with its separator, so that shares of bytes become shares of
// documents.
constexpr std::array<double, kKinds> kMeanBytes = {545, 255, 176, 161, 356};

Kind draw_kind(const Options& options, Split split, uint64_t index) {
  // Whole numbers from here on: sums of them are the same on every platform.
  std::array<uint64_t, kKinds> weights;
  const auto share = shares(options);
  const double largest = *std::max_element(share.begin(), share.end());
  uint64_t total = 0;
  for (int i = 0; i < kKinds; ++i) {
    weights[i] = static_cast<uint64_t>(std::floor(share[i] / largest * 1e9 / kMeanBytes[i]));
    total += weights[i];
  }
  Draw draw(options.seed, Purpose::kind, split, index);
  uint64_t at = draw.rng.below(total);
  int kind = 0;
  while (at >= weights[kind]) at -= weights[kind++];
  return static_cast<Kind>(kind);
}

// The passage with `count` of its questions, answered.
std::string answered(const Passage& passage, int count, Rng& rng) {
  std::vector<const Asked*> order;
  for (const auto& asked : passage.questions) order.push_back(&asked);
  shuffle(order, rng);
  order.resize(std::min<size_t>(order.size(), count));
  std::string text = passage.text;
  for (const auto* asked : order)
    text += "\nQuestion: " + asked->question + "\nAnswer: " + asked->accepted.front();
  return text;
}

// One problem told as a story, or one to four others.
std::string arithmetic_text(Draw& draw) {
  std::string text;
  for (int left = between(draw.rng, 1, 4); left > 0; --left) {
    const size_t keys = draw.keys.size();
    const Question question = make_arithmetic(draw);
    const bool story = !question.prompt.starts_with("Question:");
    if (story && !text.empty()) {
      draw.keys.resize(keys);
      break;
    }
    if (!text.empty()) text += '\n';
    text += question.prompt + " " + question.completion;
    if (story) break;
  }
  return text;
}

Purpose purpose_of(Kind kind) {
  static constexpr Purpose kPurposes[kKinds] = {Purpose::story, Purpose::question, Purpose::arithmetic,
                                                Purpose::instruction, Purpose::fact};
  return kPurposes[static_cast<int>(kind)];
}

}  // namespace

std::string_view kind_name(Kind kind) {
  static constexpr std::string_view kNames[kKinds] = {"story", "question", "arithmetic", "instruction",
                                                      "fact"};
  return kNames[static_cast<int>(kind)];
}

void check(const Options& options) {
  constexpr uint64_t kLeast = 10'000;
  require(options.documents > 0 || options.bytes >= kLeast, "[tales] bytes: expected at least {}, found {}",
          kLeast, options.bytes);
  require(options.valid_bytes == 0 || options.valid_bytes >= kLeast,
          "[tales] valid_bytes: expected 0 or at least {}, found {}", kLeast, options.valid_bytes);
  double sum = 0;
  const auto share = shares(options);
  for (int i = 0; i < kKinds; ++i) {
    require(std::isfinite(share[i]) && share[i] >= 0,
            "[tales] {}_share: expected a number of at least 0, found {}", kind_name(static_cast<Kind>(i)),
            share[i]);
    sum += share[i];
  }
  require(sum > 0, "[tales] shares: expected at least one above 0, found none");
}

void check_kind(std::string_view what, std::string_view kind, const std::vector<std::string>& known) {
  if (kind.empty() || std::find(known.begin(), known.end(), kind) != known.end()) return;
  fail("[tales] {} kind '{}': expected one of {}{}", what, kind, fmt::join(known, ", "),
       suggestion(kind, known));
}

const std::vector<std::string>& question_kind_names() {
  static const auto all = [] {
    std::vector<std::string> names;
    for (const auto& kind : question_kinds()) names.push_back(kind.name);
    return names;
  }();
  return all;
}

const std::vector<QuestionKind>& question_kinds() {
  static const auto all = [] {
    auto kinds = passage_kinds();
    kinds.insert(kinds.end(), fact_kinds().begin(), fact_kinds().end());
    kinds.insert(kinds.end(), arithmetic_kinds().begin(), arithmetic_kinds().end());
    return kinds;
  }();
  return all;
}

Document document(const Options& options, Split split, uint64_t index, Kind kind) {
  check(options);
  Draw draw(options.seed, purpose_of(kind), split, index);
  Document result;
  result.kind = kind;
  switch (kind) {
    case Kind::story:
      result.text = make_story(draw).text;
      break;
    case Kind::question: {
      const Passage passage = make_passage(draw);
      result.text = answered(passage, between(draw.rng, 2, 4), draw.rng);
      break;
    }
    case Kind::arithmetic:
      result.text = arithmetic_text(draw);
      break;
    case Kind::instruction: {
      const Instruction instruction = make_instruction(draw);
      result.text = "Instruction: " + instruction.prompt + "\nResponse: " + instruction.completion;
      break;
    }
    case Kind::fact: {
      const Passage passage = make_fact_passage(draw, chance(draw.rng, 40));
      result.text = answered(passage, between(draw.rng, 2, 4), draw.rng);
      break;
    }
  }
  result.keys = std::move(draw.keys);
  return result;
}

Document document(const Options& options, Split split, uint64_t index) {
  check(options);
  return document(options, split, index, draw_kind(options, split, index));
}

Question question(const Options& options, Split split, uint64_t index, std::string_view kind) {
  check_kind("question", kind, question_kind_names());
  const auto& kinds = question_kinds();
  if (kind.empty()) kind = kinds[index % kinds.size()].name;
  Draw draw(options.seed, Purpose::asked_question, split, index);
  const auto listed = [&](const std::vector<QuestionKind>& some) {
    return std::any_of(some.begin(), some.end(), [&](const QuestionKind& one) { return one.name == kind; });
  };
  if (listed(arithmetic_kinds())) return make_arithmetic(draw, kind);
  const Passage passage =
      listed(fact_kinds()) ? make_fact_passage(draw, kind == "fact_two_hop") : make_passage(draw, kind);
  std::vector<const Asked*> asked;
  for (const auto& one : passage.questions) {
    if (one.kind == kind) asked.push_back(&one);
  }
  Question result = ask(passage, *pick(asked, draw.rng));
  result.keys = std::move(draw.keys);
  return result;
}

Instruction asked_arithmetic(const Options& options, Split split, uint64_t index) {
  Draw draw(options.seed, Purpose::asked_arithmetic, split, index);
  return make_instruction(draw, "answer_arithmetic");
}

Instruction instruction(const Options& options, Split split, uint64_t index, std::string_view kind) {
  check_kind("instruction", kind, instruction_kinds());
  Draw draw(options.seed, Purpose::asked_instruction, split, index);
  return make_instruction(draw, kind);
}

}  // namespace qkv::tales
