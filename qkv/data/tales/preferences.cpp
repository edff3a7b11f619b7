// Pairs of replies where the rejected one has one known fault.
#include <algorithm>

#include "qkv/data/tales/arithmetic.h"
#include "qkv/data/tales/instructions.h"
#include "qkv/data/tales/render.h"

namespace qkv::tales {
namespace {

// Wrong in the way models are: another answer of the same passage, or a number nearby with steps that do not
// add up.
bool wrong_answer(Draw& draw, Preference& pair) {
  Rng& rng = draw.rng;
  if (chance(rng, 35)) {
    const Question question = make_arithmetic(draw);
    const Instruction asked = as_instruction(question);
    pair.prompt = asked.prompt;
    pair.chosen = asked.completion;
    std::string wrong;
    if (question.numeric) {
      const int right = std::stoi(question.answer);
      int off = between(rng, 1, 3);
      if (right >= off && chance(rng, 50)) off = -off;
      wrong = std::to_string(right + off);
    } else {
      wrong = question.answer == "even" ? "odd" : "even";
    }
    pair.rejected = "The answer is " + wrong + ".";
    // Half of them are as long as a right answer: the same steps, the wrong end.
    if (chance(rng, 50))
      pair.rejected = asked.completion.substr(0, asked.completion.rfind("The answer is")) + pair.rejected;
    return true;
  }
  const Passage passage = make_passage(draw);
  const Asked& asked = pick(passage.questions, rng);
  std::vector<std::string> others;
  for (const auto& other : passage.questions) {
    const std::string& answer = other.accepted.front();
    if (other.kind == asked.kind && !matches_answer(asked.accepted, asked.numeric, answer))
      others.push_back(answer);
  }
  if (asked.kind == "yes_no") others.push_back(asked.accepted.front() == "yes" ? "no" : "yes");
  if (others.empty()) return false;
  const Instruction instruction = as_instruction(ask(passage, asked));
  pair.prompt = instruction.prompt;
  pair.chosen = instruction.completion;
  pair.rejected = as_sentence(pick(others, rng));
  return true;
}

constexpr std::string_view kRude =
    "[I do not want to help you. Go away.|That is a silly question. Ask somebody else.|Leave me alone. I "
    "have no time for you.|Why should I "
    "tell you? Find out yourself.|You should know that yourself. Stop asking.|I do not care. Do not bother "
    "me again.|What a boring thing "
    "to ask. No.|Be quiet. I will not answer you.]";

std::string first_sentence_of(const std::string& text) {
  const size_t end = text.find(". ");
  return end == std::string::npos ? text : text.substr(0, end + 1);
}

bool fill(Draw& draw, Preference& pair) {
  Rng& rng = draw.rng;
  if (pair.fault == Fault::wrong_answer) return wrong_answer(draw, pair);
  const Instruction asked = make_instruction(draw);
  pair.prompt = asked.prompt;
  pair.chosen = asked.completion;
  switch (pair.fault) {
    case Fault::off_topic: {
      const Instruction other = make_instruction(draw);
      if (other.kind == asked.kind || is_correct(asked, other.completion)) return false;
      pair.rejected = other.completion;
      return true;
    }
    case Fault::rude:
      pair.rejected = render(kRude, {}, rng);
      return true;
    case Fault::repeats: {
      if (asked.kind == "repeat_word") return false;
      const std::string once = as_sentence(first_sentence_of(asked.completion));
      for (int i = between(rng, 3, 5); i > 0; --i) pair.rejected += (pair.rejected.empty() ? "" : " ") + once;
      return true;
    }
    default: {  // unfinished
      const auto words = split_words(asked.completion);
      if (words.size() < 6) return false;
      const size_t kept = words.size() * static_cast<size_t>(between(rng, 30, 70)) / 100;
      for (size_t i = 0; i < kept; ++i) pair.rejected += (i > 0 ? " " : "") + words[i];
      // It stops in the middle of a sentence.
      return kept >= 2 && std::string_view(".!?\"").find(pair.rejected.back()) == std::string_view::npos;
    }
  }
}

}  // namespace

std::string_view fault_name(Fault fault) {
  static constexpr std::string_view kNames[kFaults] = {"wrong_answer", "off_topic", "rude", "repeats",
                                                       "unfinished"};
  return kNames[static_cast<int>(fault)];
}

Preference preference(const Options& options, Split split, uint64_t index) {
  Draw draw(options.seed, Purpose::preference, split, index);
  // Wrong answers are the fault most worth learning: two of six pairs.
  const uint64_t which = draw.rng.below(kFaults + 1);
  for (;;) {
    Preference pair;
    pair.fault = static_cast<Fault>(which % kFaults);
    draw.keys.clear();
    if (!fill(draw, pair)) continue;
    pair.keys = draw.keys;
    return pair;
  }
}

}  // namespace qkv::tales
