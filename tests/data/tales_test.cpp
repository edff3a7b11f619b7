#include "qkv/data/tales.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <xxhash.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <sstream>

#include "qkv/core/atomic_file.h"
#include "qkv/core/error.h"
#include "qkv/core/interrupt.h"
#include "qkv/core/json.h"
#include "qkv/core/parallel.h"
#include "tests/support/test_paths.h"

namespace qkv::tales {
namespace {

using test::error_of;
using test::TemporaryDirectory;

constexpr Split kSplits[] = {Split::train, Split::held_out};

class Digest {
 public:
  Digest() : state_(XXH3_createState()) { XXH3_64bits_reset(state_); }
  ~Digest() { XXH3_freeState(state_); }
  void add(const std::string& text) { XXH3_64bits_update(state_, text.c_str(), text.size() + 1); }
  uint64_t value() const { return XXH3_64bits_digest(state_); }

 private:
  XXH3_state_t* state_;
};

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

// All that a split can produce, up to `count` of each kind.
std::vector<std::string> sample_texts(Split split, uint64_t count) {
  const Options options;
  std::vector<std::string> texts;
  for (uint64_t i = 0; i < count; ++i) {
    texts.push_back(document(options, split, i).text);
    const Question q = question(options, split, i);
    texts.push_back(q.prompt + " " + q.completion);
    const Instruction one = instruction(options, split, i);
    texts.push_back(one.prompt);
    texts.push_back(one.completion);
  }
  return texts;
}

TEST(Tales, BytesArePinned) {
  // These change only when the corpus is meant to change: any model trained before then knows another split
  // of it.
  Options options;
  options.seed = 42;
  Digest documents, tasks, facts;
  for (const Split split : kSplits) {
    for (uint64_t i = 0; i < 1000; ++i) documents.add(document(options, split, i).text);
    for (uint64_t i = 0; i < 500; ++i) {
      const Question q = question(options, split, i);
      tasks.add(q.prompt + q.completion);
      const Instruction one = instruction(options, split, i);
      tasks.add(one.prompt + one.completion);
      const Preference pair = preference(options, split, i);
      tasks.add(pair.prompt + pair.chosen + pair.rejected);
    }
  }
  for (const auto& one : fact_documents(42)) facts.add(one.id + one.title + one.text);
  for (const auto& one : fact_questions(42)) facts.add(one.prompt + one.answer);
  EXPECT_EQ(documents.value(), 10207372436578619500ULL);
  EXPECT_EQ(tasks.value(), 9934426444783623243ULL);
  EXPECT_EQ(facts.value(), 9463621269577817723ULL);
}

TEST(Tales, DocumentsAreFunctionsOfSeedSplitAndIndex) {
  const Options options;
  std::vector<std::string> forward;
  for (uint64_t i = 0; i < 200; ++i) forward.push_back(document(options, Split::train, i).text);
  for (uint64_t i = 200; i-- > 0;) {
    (void)question(options, Split::train, i);
    EXPECT_EQ(document(options, Split::train, i).text, forward[i]) << i;
  }
  Options other;
  other.seed = 1;
  int same = 0;
  for (uint64_t i = 0; i < 200; ++i) same += document(other, Split::train, i).text == forward[i];
  EXPECT_LT(same, 5);
}

TEST(Tales, TheKeysOfTheSplitsAreDisjoint) {
  const Options options;
  std::set<std::string> keys[2], texts[2];
  for (int s = 0; s < 2; ++s) {
    for (uint64_t i = 0; i < 6000; ++i) {
      const Document one = document(options, kSplits[s], i);
      EXPECT_FALSE(one.keys.empty()) << one.text;
      keys[s].insert(one.keys.begin(), one.keys.end());
      texts[s].insert(one.text);
      const auto asked = question(options, kSplits[s], i);
      EXPECT_FALSE(asked.keys.empty()) << asked.prompt;
      keys[s].insert(asked.keys.begin(), asked.keys.end());
      const auto told = instruction(options, kSplits[s], i);
      EXPECT_FALSE(told.keys.empty()) << told.prompt;
      keys[s].insert(told.keys.begin(), told.keys.end());
      if (i % 4 == 0) {
        const auto pair = preference(options, kSplits[s], i);
        keys[s].insert(pair.keys.begin(), pair.keys.end());
      }
    }
    for (const auto& key : keys[s]) ASSERT_EQ(held_out(key), kSplits[s] == Split::held_out) << key;
  }
  EXPECT_GT(keys[0].size(), 20000u);
  EXPECT_GT(keys[1].size(), 10000u);
  std::vector<std::string> both;
  std::set_intersection(keys[0].begin(), keys[0].end(), keys[1].begin(), keys[1].end(),
                        std::back_inserter(both));
  EXPECT_TRUE(both.empty());
  std::set_intersection(texts[0].begin(), texts[0].end(), texts[1].begin(), texts[1].end(),
                        std::back_inserter(both));
  EXPECT_TRUE(both.empty());
}

// From the text alone: which sums, products and plain facts each split states.
std::set<std::string> stated_facts(Split split, uint64_t documents) {
  static const std::regex sum(R"(What is (\d+) \+ (\d+)\?)"), difference(R"(What is (\d+) - (\d+)\?)"),
      product(R"(What is (\d+) x (\d+)\?)"), has(R"((?:^|\. )([A-Z][a-z]+) has (an? [a-z]+ [a-z-]+)(?=\.))");
  std::set<std::string> facts;
  const auto pair = [&](const char* name, int a, int b) {
    facts.insert(fmt::format("{} {} {}", name, std::min(a, b), std::max(a, b)));
  };
  const Options options;
  for (uint64_t i = 0; i < documents; ++i) {
    for (const Kind kind : {Kind::arithmetic, Kind::question}) {
      const std::string text = document(options, split, i, kind).text;
      const auto each = [&](const std::regex& pattern, auto&& use) {
        for (std::sregex_iterator at(text.begin(), text.end(), pattern), end; at != end; ++at) use(*at);
      };
      each(sum, [&](const auto& m) { pair("sum", std::stoi(m[1]), std::stoi(m[2])); });
      each(difference,
           [&](const auto& m) { pair("sum", std::stoi(m[2]), std::stoi(m[1]) - std::stoi(m[2])); });
      each(product, [&](const auto& m) { pair("product", std::stoi(m[1]), std::stoi(m[2])); });
      each(has, [&](const auto& m) { facts.insert(m[1].str() + " has " + m[2].str()); });
    }
  }
  return facts;
}

TEST(Tales, NoHeldOutFactStandsInATrainingText) {
  const auto train = stated_facts(Split::train, 8000), held = stated_facts(Split::held_out, 4000);
  EXPECT_GT(train.size(), 4000u);
  EXPECT_GT(held.size(), 1000u);
  for (const auto& fact : held) EXPECT_FALSE(train.contains(fact)) << fact;
  int sums = 0, products = 0;
  for (const auto& fact : held) {
    sums += fact.starts_with("sum ");
    products += fact.starts_with("product ");
  }
  EXPECT_GE(sums, 200);
  EXPECT_GE(products, 5);
}

// ---- arithmetic, worked out again from the text ----

std::vector<int> all_numbers(const std::string& text) {
  static const std::regex number(R"(\d+)");
  std::vector<int> numbers;
  for (std::sregex_iterator at(text.begin(), text.end(), number), end; at != end; ++at)
    numbers.push_back(std::stoi((*at)[0]));
  return numbers;
}

void check_equations(const std::string& text) {
  static const std::regex equation(R"((\d+) ([+-]) (\d+)(?: ([+-]) (\d+))? = (\d+))");
  for (std::sregex_iterator at(text.begin(), text.end(), equation), end; at != end; ++at) {
    const auto& m = *at;
    int value = std::stoi(m[1]) + (m[2] == "+" ? 1 : -1) * std::stoi(m[3]);
    if (m[5].matched) value += (m[4] == "+" ? 1 : -1) * std::stoi(m[5]);
    EXPECT_EQ(value, std::stoi(m[6])) << text;
  }
}

std::string expected_answer(const Question& q) {
  const size_t label = q.prompt.rfind("Question: ");
  const std::string passage = q.prompt.substr(0, label);
  const std::string asked = q.prompt.substr(label + 10, q.prompt.size() - label - 10 - 8);
  std::smatch m;
  const auto matches = [&](const char* pattern) { return std::regex_match(asked, m, std::regex(pattern)); };
  const auto number = [&](int group) { return std::stoi(m[group]); };
  if (matches(R"(What is (\d+) \+ (\d+)\?)")) return std::to_string(number(1) + number(2));
  if (matches(R"(What is (\d+) \+ (\d+) \+ (\d+)\?)"))
    return std::to_string(number(1) + number(2) + number(3));
  if (matches(R"(What is (\d+) - (\d+)\?)")) return std::to_string(number(1) - number(2));
  if (matches(R"(What is (\d+) x (\d+)\?)")) return std::to_string(number(1) * number(2));
  if (matches(R"(Which is bigger, (\d+) or (\d+)\?)")) return std::to_string(std::max(number(1), number(2)));
  if (matches(R"(Which is smaller, (\d+) or (\d+)\?)")) return std::to_string(std::min(number(1), number(2)));
  if (matches(R"(What number comes after (\d+)\?)")) return std::to_string(number(1) + 1);
  if (matches(R"(What number comes before (\d+)\?)")) return std::to_string(number(1) - 1);
  if (matches(R"(What comes next: (\d+), (\d+), (\d+)\?)")) {
    EXPECT_EQ(number(3) - number(2), number(2) - number(1)) << asked;
    return std::to_string(2 * number(3) - number(2));
  }
  if (matches(R"(Count the [a-z-]+:(( [a-z-]+)+))")) {
    const std::string row = m[1];
    return std::to_string(std::count(row.begin(), row.end(), ' '));
  }
  if (matches(R"(Is (\d+) even or odd\?)")) return number(1) % 2 == 0 ? "even" : "odd";
  const auto numbers = all_numbers(passage);
  EXPECT_EQ(numbers.size(), 2u) << q.prompt;
  if (numbers.size() != 2) return "";
  if (passage.find("in each") != std::string::npos) return std::to_string(numbers[0] * numbers[1]);
  if (passage.find(" more.") != std::string::npos) return std::to_string(numbers[0] + numbers[1]);
  return std::to_string(numbers[0] - numbers[1]);
}

TEST(Tales, ArithmeticIsRight) {
  const Options options;
  int checked = 0;
  for (const auto& kind : question_kinds()) {
    if (!kind.arithmetic) continue;
    for (const Split split : kSplits) {
      for (uint64_t i = 0; i < 300; ++i, ++checked) {
        const Question q = question(options, split, i, kind.name);
        EXPECT_EQ(q.kind, kind.name);
        EXPECT_EQ(q.answer, expected_answer(q)) << q.prompt << q.completion;
        EXPECT_TRUE(q.completion.ends_with("The answer is " + q.answer + ".")) << q.completion;
        check_equations(q.completion);
        EXPECT_TRUE(is_correct(q, " " + q.completion)) << q.completion;
      }
    }
  }
  EXPECT_GE(checked, 15 * 600);
}

TEST(Tales, ArithmeticDocumentsHoldWholeProblems) {
  static const std::regex whole(
      R"((?:[^\n]+\n)?Question: ([^\n]+)\nAnswer: (?:[^\n]+ )?The answer is ([a-z0-9]+)\.(\n|$))");
  const Options options;
  for (uint64_t i = 0; i < 3000; ++i) {
    const std::string text = document(options, Split::train, i, Kind::arithmetic).text;
    check_equations(text);
    size_t covered = 0;
    for (std::sregex_iterator at(text.begin(), text.end(), whole), end; at != end; ++at)
      covered += (*at)[0].length();
    EXPECT_EQ(covered, text.size()) << text;
  }
}

// ---- questions ----

TEST(Tales, CopiedAnswersStandInThePassage) {
  const Options options;
  for (const auto& kind : question_kinds()) {
    if (kind.arithmetic) continue;
    std::set<std::string> answers;
    for (uint64_t i = 0; i < 300; ++i) {
      const Question q = question(options, i % 2 ? Split::train : Split::held_out, i, kind.name);
      const std::string passage = q.prompt.substr(0, q.prompt.rfind("\nQuestion: "));
      EXPECT_TRUE(q.prompt.ends_with("?\nAnswer:")) << q.prompt;
      EXPECT_FALSE(q.answer.empty());
      EXPECT_EQ(q.accepted.front(), q.answer);
      EXPECT_TRUE(is_correct(q, " " + q.completion + "\nQuestion: What else?")) << q.prompt << q.completion;
      EXPECT_GT(q.chance, 0);
      EXPECT_LE(q.chance, 0.5);
      if (q.copied) {
        const bool found = std::any_of(q.accepted.begin(), q.accepted.end(), [&](const std::string& answer) {
          return passage.find(answer) != std::string::npos;
        });
        EXPECT_TRUE(found) << q.prompt << " " << q.answer;
      } else {
        EXPECT_TRUE(q.answer == "yes" || q.answer == "no") << q.answer;
      }
      answers.insert(q.answer);
    }
    EXPECT_GE(answers.size(), kind.name == "yes_no" ? 2u : 7u) << kind.name;
  }
}

TEST(Tales, EachAnswerFollowsFromItsPassage) {
  // The plain scenes, read again: "<name> has a <colour> <thing>." and the moves.
  const Options options;
  static const std::regex has(R"(([A-Z][a-z]+) has an? ([a-z]+) ([a-z-]+)\.)"),
      went(R"(([A-Z][a-z]+) went to the ([a-z]+)\.)");
  int owners = 0;
  for (uint64_t i = 0; i < 2000; ++i) {
    const Question who = question(options, Split::held_out, i, "who");
    std::smatch asked;
    if (!std::regex_search(who.prompt, asked, std::regex(R"(Who has the ([a-z-]+)\?)"))) continue;
    std::map<std::string, std::string> owner;
    for (std::sregex_iterator at(who.prompt.begin(), who.prompt.end(), has), end; at != end; ++at)
      owner[(*at)[3]] = (*at)[1];
    EXPECT_EQ(owner[asked[1]], who.answer) << who.prompt;
    ++owners;
  }
  EXPECT_GT(owners, 100);
  for (uint64_t i = 0; i < 300; ++i) {
    const Question where = question(options, Split::held_out, i, "where_now");
    std::map<std::string, std::string> place;
    for (std::sregex_iterator at(where.prompt.begin(), where.prompt.end(), went), end; at != end; ++at)
      place[(*at)[1]] = (*at)[2];
    std::smatch asked;
    ASSERT_TRUE(std::regex_search(where.prompt, asked, std::regex(R"(Where is ([A-Z][a-z]+) now\?)")));
    EXPECT_TRUE(is_correct(where, place[asked[1]])) << where.prompt << " " << where.answer;
  }
}

TEST(Tales, ScoringIsExactButForgiving) {
  Question thing;
  thing.accepted = {"a red kite", "red kite", "kite"};
  for (const char* right :
       {"a red kite", " A red kite.", "Red kite!", "\n the red kite\nQuestion: Who?", "kite<|endoftext|>Once",
        "It is a red kite.", "The answer is a red kite.", "a red kite. Mia has it."}) {
    EXPECT_TRUE(is_correct(thing, right)) << right;
  }
  for (const char* wrong : {"", "   ", "a blue kite", "red", "a red kite and a ball", "Mia",
                            "<|endoftext|>a red kite", "not a red kite"}) {
    EXPECT_FALSE(is_correct(thing, wrong)) << wrong;
  }
  Question sum;
  sum.accepted = {"85"};
  sum.numeric = true;
  for (const char* right :
       {"85", "7 + 8 = 15, write 5 carry 1. 4 + 3 + 1 = 8. The answer is 85.", "47 + 38 = 85",
        "The answer is 85. The answer is 12.", "85.", "85.0", "the answer is: 85 apples"}) {
    EXPECT_TRUE(is_correct(sum, right)) << right;
  }
  for (const char* wrong : {"", "84", "185", "85.5", "-85", "The answer is 58.",
                            "85 is what you get from 47 + 38", "8 5", "eighty", "\n\n"}) {
    EXPECT_FALSE(is_correct(sum, wrong)) << wrong;
  }
  EXPECT_TRUE(matches_answer({"1200"}, true, "1,200"));
  EXPECT_TRUE(matches_answer({"3"}, true, "three apples"));
  EXPECT_TRUE(matches_answer({"even"}, false, "82 ends in 2, and 2 is even. The answer is even."));
  EXPECT_FALSE(matches_answer({"odd"}, false, "82 ends in 2, and 2 is even. The answer is even."));
}

TEST(Tales, ScoringSurvivesAnyBytes) {
  uint64_t state = 1;
  const Options options;
  for (int i = 0; i < 3000; ++i) {
    std::string junk;
    for (int n = i % 40; n > 0; --n) {
      state = state * 6364136223846793005ULL + 1442695040888963407ULL;
      junk += static_cast<char>(state >> 56);
    }
    (void)is_correct(question(options, Split::held_out, i % 70), junk);
    (void)is_correct(instruction(options, Split::held_out, i % 70), junk);
  }
  (void)matches_answer({"1"}, true, std::string(5000, '9'));
}

// ---- instructions and preferences ----

TEST(Tales, InstructionsHaveRightReplies) {
  const Options options;
  for (const auto& kind : instruction_kinds()) {
    int fooled = 0;
    for (uint64_t i = 0; i < 200; ++i) {
      const Instruction one = instruction(options, i % 2 ? Split::train : Split::held_out, i, kind);
      EXPECT_EQ(one.kind, kind);
      EXPECT_TRUE(is_correct(one, one.completion)) << one.prompt << "\n" << one.completion;
      EXPECT_FALSE(is_correct(one, "")) << one.prompt;
      EXPECT_FALSE(is_correct(one, "I do not know.")) << one.prompt;
      const Instruction other =
          instruction(options, Split::train, i + 1000, kind == "list" ? "opposite" : "list");
      fooled += is_correct(one, other.completion);
    }
    EXPECT_LE(fooled, 2) << kind;
  }
}

TEST(Tales, RejectedRepliesHaveTheirFault) {
  const Options options;
  std::map<std::string, int> faults;
  for (uint64_t i = 0; i < 3000; ++i) {
    const Preference pair = preference(options, i % 2 ? Split::train : Split::held_out, i);
    ++faults[std::string(fault_name(pair.fault))];
    EXPECT_FALSE(pair.prompt.empty());
    EXPECT_FALSE(pair.chosen.empty());
    EXPECT_FALSE(pair.rejected.empty());
    EXPECT_NE(pair.chosen, pair.rejected) << pair.prompt;
    const std::string end(1, pair.rejected.back());
    switch (pair.fault) {
      case Fault::wrong_answer:
        EXPECT_FALSE(matches_answer({pair.chosen.substr(0, pair.chosen.size() - 1)}, false, pair.rejected))
            << pair.prompt;
        break;
      case Fault::repeats: {
        const std::string once = pair.rejected.substr(0, (pair.rejected.size() + 1) / 3);
        EXPECT_NE(pair.rejected.find(once.substr(0, 4), 4), std::string::npos) << pair.rejected;
        break;
      }
      case Fault::unfinished:
        EXPECT_TRUE(pair.chosen.starts_with(pair.rejected)) << pair.rejected;
        EXPECT_EQ(std::string(".!?").find(end), std::string::npos) << pair.rejected;
        break;
      case Fault::off_topic:
      case Fault::rude:
        break;
    }
  }
  EXPECT_EQ(faults.size(), static_cast<size_t>(kFaults));
  for (const auto& [name, count] : faults) EXPECT_GT(count, 300) << name;
}

// ---- facts ----

TEST(Tales, TheKnowledgeBaseAgreesWithItself) {
  const auto documents = fact_documents(7);
  std::map<std::string, std::string> text_of;
  std::set<std::string> titles;
  int facts = 0;
  for (const auto& one : documents) {
    EXPECT_TRUE(text_of.emplace(one.id, one.text).second) << one.id;
    EXPECT_TRUE(titles.insert(one.title).second) << one.title;
    facts += one.facts;
  }
  EXPECT_GE(documents.size(), 150u);
  EXPECT_GE(facts, 500);
  int single = 0, two = 0;
  std::set<std::string> prompts;
  for (const auto& one : fact_questions(7)) {
    EXPECT_TRUE(prompts.insert(one.prompt).second) << one.prompt;
    ASSERT_EQ(one.documents.size(), static_cast<size_t>(one.hops));
    EXPECT_EQ(one.accepted.front(), one.answer);
    const std::string& last = text_of.at(one.documents.back());
    const bool found = std::any_of(one.accepted.begin(), one.accepted.end(), [&](const std::string& answer) {
      return last.find(answer) != std::string::npos;
    });
    EXPECT_TRUE(found) << one.prompt << " " << one.answer << "\n" << last;
    if (one.hops == 2) {
      // The first document names the second's subject, and the question does not.
      ++two;
      const std::string& first = text_of.at(one.documents.front());
      std::string subject;
      for (const auto& entity : documents) {
        if (entity.id != one.documents.back()) continue;
        subject = entity.title;
        for (const std::string prefix : {"The town of ", "The river "}) {
          if (subject.starts_with(prefix)) subject.erase(0, prefix.size());
        }
      }
      EXPECT_NE(first.find(subject), std::string::npos) << one.prompt << "\n" << first;
      EXPECT_EQ(one.prompt.find(subject), std::string::npos) << one.prompt;
    } else {
      ++single;
    }
  }
  EXPECT_EQ(single, facts);
  EXPECT_GE(two, 200);
}

TEST(Tales, TheKnowledgeBaseIsNeverTrainedOn) {
  const Options options;
  std::string train;
  for (uint64_t i = 0; i < 3000; ++i) train += document(options, Split::train, i, Kind::fact).text + "\n";
  for (const auto& one : fact_documents(options.seed)) {
    EXPECT_EQ(train.find(one.text), std::string::npos) << one.text;
    std::string name = one.title;
    for (const std::string prefix : {"The town of ", "The river ", "The "}) {
      if (name.starts_with(prefix)) name.erase(0, prefix.size());
    }
    // As a whole word: one name may begin another.
    for (size_t at = train.find(name); at != std::string::npos; at = train.find(name, at + 1)) {
      const bool word = !std::isalpha(static_cast<unsigned char>(train[at + name.size()])) &&
                        (at == 0 || !std::isalpha(static_cast<unsigned char>(train[at - 1])));
      const bool joined = train[at + name.size()] == ' ' && one.id.starts_with("person");
      EXPECT_FALSE(word && !joined) << name << ": " << train.substr(at > 40 ? at - 40 : 0, 100);
    }
  }
}

// ---- the language ----

TEST(Tales, TextIsClean) {
  static const std::regex wrong_a(R"(\b[Aa] (?!uni|use|one)[aeiou])"),
      wrong_an(R"(\b[Aa]n (?!hour|honest)[^aeiou])"), odd_space(R"( [.,!?:]|  |^ | $|\n\n| \n)"),
      small_start(R"((?:^|[.!?] )[a-z])"), doubled(R"(\b([a-z]+) \1\b)");
  int texts = 0;
  for (const Split split : kSplits) {
    for (const auto& text : sample_texts(split, 2500)) {
      ++texts;
      for (const char c : text) ASSERT_TRUE(c == '\n' || (c >= ' ' && c <= '~')) << text;
      ASSERT_EQ(text.find_first_of("{}[]|_<>\\"), std::string::npos) << text;
      ASSERT_EQ(std::count(text.begin(), text.end(), '"') % 2, 0) << text;
      const bool is_story = text.size() > 250;
      // Rows of words to count, to order or to repeat follow other rules.
      const bool exercise =
          text.find("Count the ") != std::string::npos || text.find("in order:") != std::string::npos ||
          text.find(" times.") != std::string::npos || text.find(", two ...") != std::string::npos;
      if (exercise) continue;
      ASSERT_FALSE(std::regex_search(text, wrong_a)) << text;
      ASSERT_FALSE(std::regex_search(text, wrong_an)) << text;
      ASSERT_FALSE(std::regex_search(text, odd_space)) << text;
      if (!is_story) continue;
      ASSERT_FALSE(std::regex_search(text, small_start)) << text;
      ASSERT_FALSE(std::regex_search(text, doubled)) << text;
    }
  }
  EXPECT_GE(texts, 20000);
}

TEST(Tales, StoriesKeepTheirCast) {
  const Options options;
  int checked = 0, apart = 0;
  for (uint64_t i = 0; i < 2000; ++i) {
    const Instruction asked = instruction(options, Split::train, i, "tell_story");
    const std::string& story = asked.completion;
    const long sentences =
        std::count_if(story.begin(), story.end(), [](char c) { return c == '.' || c == '!' || c == '?'; });
    EXPECT_GE(sentences, 3) << story;
    EXPECT_LE(sentences, 26) << story;
    // Stories of boys alone know no "she", and the other way round, unless a grown-up is one.
    const auto has = [&](const char* pattern) { return std::regex_search(story, std::regex(pattern)); };
    if (!has(R"(\b(girl|boy)\b.*\b(girl|boy)\b)")) continue;
    ++checked;
    const bool girls = has(R"(\bgirl\b)"), boys = has(R"(\bboy\b)");
    EXPECT_TRUE(girls || has("mother|aunt") || !has(R"(\b([Ss]he|[Hh]er)\b)")) << story;
    EXPECT_TRUE(boys || has("father|uncle") || !has(R"(\b([Hh]e|[Hh]is|[Hh]im)\b)")) << story;
    apart += girls != boys;
  }
  EXPECT_GT(checked, 300);
  EXPECT_GT(apart, 30);
}

TEST(Tales, TheLanguageIsVaried) {
  const Options options;
  std::set<std::string> sentences, names, subjects, words;
  for (uint64_t i = 0; i < 5000; ++i) {
    const std::string text = document(options, Split::train, i).text;
    size_t begin = 0;
    for (size_t at = 0; at <= text.size(); ++at) {
      if (at < text.size() && text[at] != '\n' &&
          !(text[at] == ' ' && std::string(".!?").find(text[at - 1]) != std::string::npos))
        continue;
      sentences.insert(text.substr(begin, at - begin));
      begin = at + 1;
    }
    std::istringstream stream(text);
    for (std::string word; stream >> word;) words.insert(word);
    for (const auto& key : document(options, Split::train, i, Kind::story).keys) {
      const size_t from = key.find('|') + 1;
      names.insert(key.substr(from, key.find('|', from) - from));
    }
    // "a fox who lost a red kite" without the fox and the kite.
    const std::string prompt = instruction(options, Split::train, i, "tell_story").prompt;
    std::smatch verb;
    ASSERT_TRUE(std::regex_search(prompt, verb, std::regex(R"(who ([a-z]+ [a-z]+ ?[a-z]*))"))) << prompt;
    subjects.insert(verb[1].str().substr(0, verb[1].str().find(' ')));
  }
  EXPECT_GE(sentences.size(), 15000u);
  EXPECT_GE(names.size(), 150u);
  EXPECT_GE(subjects.size(), 15u);
  EXPECT_GE(words.size(), 1500u);
}

// ---- files ----

std::map<std::string, std::string> files_of(const std::string& directory) {
  std::map<std::string, std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    files[entry.path().filename().string()] = read_file(entry.path().string());
  }
  return files;
}

Options small_options() {
  Options options;
  options.bytes = 300'000;
  options.questions = 300;
  options.instructions = 200;
  options.preferences = 200;
  return options;
}

TEST(Tales, StylesAreShownEquallyOftenAndSayTheSame) {
  const std::regex friendly(friendly_pattern());
  int shown = 0;
  constexpr int kReplies = 1000;
  for (uint64_t i = 0; i < kReplies; ++i) {
    const StyledReply reply = styled_reply({}, kSplits[i % 2], i);
    EXPECT_EQ(style_of(reply.friendly), Style::friendly);
    EXPECT_EQ(style_of(reply.curt), Style::curt);
    EXPECT_TRUE(std::regex_search(reply.friendly, friendly));
    EXPECT_FALSE(std::regex_search(reply.curt, friendly));
    EXPECT_EQ(reply.friendly.substr(reply.friendly.find("! ") + 2),
              reply.curt.substr(reply.curt.find(". ") + 2));
    shown += reply.shown == Style::friendly;
    for (const auto& key : reply.keys) EXPECT_EQ(held_out(key), kSplits[i % 2] == Split::held_out) << key;
  }
  // Four standard deviations of a fair coin.
  EXPECT_NEAR(shown, kReplies / 2, 4 * std::sqrt(kReplies) / 2);
  // Plain replies have no style.
  for (uint64_t i = 0; i < kReplies; ++i) EXPECT_FALSE(style_of(instruction({}, Split::train, i).completion));
}

TEST(Tales, FilesAreAsDescribed) {
  const TemporaryDirectory directory;
  uint64_t last = 0, calls = 0;
  const Summary summary =
      write_corpus(small_options(), directory / "corpus", [&](uint64_t done, uint64_t total) {
        EXPECT_GE(done, last);
        EXPECT_LE(done, total);
        last = done;
        ++calls;
      });
  EXPECT_GT(calls, 5u);
  const auto files = files_of(directory / "corpus");
  EXPECT_EQ(files.size(), summary.files.size());
  for (const auto& file : summary.files) EXPECT_EQ(files.at(file.name).size(), file.bytes) << file.name;

  const std::string& train = files.at("train.txt");
  EXPECT_LE(train.size(), 300'000u);
  EXPECT_GE(train.size(), 297'000u);
  EXPECT_TRUE(train.ends_with("\n<|endoftext|>\n"));
  uint64_t documents = 0, by_kind = 0, bytes = 0;
  for (const auto& line : lines_of(train)) documents += line == kEndOfText;
  for (int kind = 0; kind < kKinds; ++kind) {
    by_kind += summary.documents[kind];
    bytes += summary.document_bytes[kind];
  }
  EXPECT_EQ(documents, by_kind);
  EXPECT_EQ(bytes, train.size());
  EXPECT_GT(summary.distinct_sentences, 4000u);
  EXPECT_LT(summary.distinct_sentences, summary.sentences);

  std::map<std::string, uint64_t> kinds;
  std::set<std::string> prompts;
  for (const auto& line : lines_of(files.at("questions.jsonl"))) {
    const Json one = parse_json(line, "questions");
    ++kinds[one.at("kind")];
    EXPECT_TRUE(prompts.insert(one.at("prompt")).second) << line;
    EXPECT_EQ(one.at("accepted").at(0), one.at("answer"));
    EXPECT_EQ(train.find(one.at("prompt").get<std::string>()), std::string::npos) << line;
  }
  EXPECT_EQ(prompts.size(), 300u);
  EXPECT_EQ(kinds.size(), question_kinds().size());
  ASSERT_EQ(summary.questions.size(), kinds.size());
  for (const auto& kind : summary.questions) {
    EXPECT_EQ(kind.questions, kinds[kind.kind]) << kind.kind;
    EXPECT_GT(kind.chance, 0) << kind.kind;
    EXPECT_LE(kind.chance, 0.5) << kind.kind;
    EXPECT_LE(kind.commonest, 1.0) << kind.kind;
  }
  for (const char* name : {"sft.jsonl", "sft_valid.jsonl"}) {
    for (const auto& line : lines_of(files.at(name))) {
      const Json messages = parse_json(line, name).at("messages");
      ASSERT_EQ(messages.size(), 2u);
      EXPECT_EQ(messages[0].at("role"), "user");
      EXPECT_EQ(messages[1].at("role"), "assistant");
      EXPECT_FALSE(messages[1].at("content").get<std::string>().empty());
    }
  }
  EXPECT_EQ(lines_of(files.at("sft.jsonl")).size(), 200u);
  EXPECT_EQ(lines_of(files.at("sft_valid.jsonl")).size(), 50u);
  for (const auto& line : lines_of(files.at("preferences.jsonl"))) {
    const Json one = parse_json(line, "preferences");
    for (const char* key : {"prompt", "chosen", "rejected", "fault"})
      EXPECT_TRUE(one.at(key).is_string()) << key;
  }
  for (const auto& line : lines_of(files.at("style_preferences.jsonl"))) {
    const Json one = parse_json(line, "style preferences");
    EXPECT_EQ(style_of(one.at("chosen").get<std::string>()), Style::friendly) << line;
    EXPECT_EQ(style_of(one.at("rejected").get<std::string>()), Style::curt) << line;
  }
  for (const auto& line : lines_of(files.at("arithmetic_valid.jsonl"))) {
    const Json one = parse_json(line, "arithmetic");
    EXPECT_EQ(train.find("Question: " + one.at("prompt").get<std::string>() + "\n"), std::string::npos)
        << line;
    EXPECT_EQ(one.at("accepted").at(0), one.at("answer"));
  }
  std::set<std::string> ids;
  for (const auto& line : lines_of(files.at("facts.jsonl"))) ids.insert(parse_json(line, "facts").at("id"));
  EXPECT_EQ(ids.size(), fact_documents(0).size());
  for (const auto& line : lines_of(files.at("facts_questions.jsonl"))) {
    for (const auto& id : parse_json(line, "facts").at("documents")) EXPECT_TRUE(ids.contains(id));
  }
  for (const auto& file : summary.files) {
    if (file.name == "README.md") continue;
    EXPECT_NE(files.at("README.md").find(file.name), std::string::npos) << file.name;
  }
}

TEST(Tales, SizesAndSharesAreMet) {
  const TemporaryDirectory directory;
  Options options = small_options();
  for (const uint64_t bytes : {10'000ull, 77'777ull, 2'000'000ull}) {
    options.bytes = bytes;
    (void)write_corpus(options, directory / "corpus");
    const double size = static_cast<double>(std::filesystem::file_size(directory / "corpus/train.txt"));
    EXPECT_LE(size, static_cast<double>(bytes));
    EXPECT_GE(size, static_cast<double>(bytes) * 0.99);
  }
  const Summary summary = write_corpus(options, directory / "corpus");
  const double shares[] = {options.story_share, options.question_share, options.arithmetic_share,
                           options.instruction_share, options.fact_share};
  for (int kind = 0; kind < kKinds; ++kind) {
    const double share = static_cast<double>(summary.document_bytes[kind]) / 2e6;
    EXPECT_NEAR(share, shares[kind], 0.03) << kind_name(static_cast<Kind>(kind));
  }
  options.documents = 123;
  options.story_share = options.question_share = options.instruction_share = options.fact_share = 0;
  const Summary few = write_corpus(options, directory / "corpus");
  EXPECT_EQ(few.documents[static_cast<int>(Kind::arithmetic)], 123u);
  EXPECT_EQ(few.files[0].records, 123u);
}

TEST(Tales, BytesDoNotDependOnThreads) {
  const TemporaryDirectory directory;
  const int threads = num_threads();
  std::map<std::string, std::string> first;
  for (const int n : {1, 2, 5}) {
    set_num_threads(n);
    (void)write_corpus(small_options(), directory / std::to_string(n));
    auto files = files_of(directory / std::to_string(n));
    if (n == 1) {
      first = std::move(files);
    } else {
      EXPECT_EQ(files, first) << n << " threads";
    }
  }
  set_num_threads(threads);
}

TEST(Tales, MemoryDoesNotGrowWithTheCorpus) {
  const TemporaryDirectory directory;
  Options options = small_options();
  options.bytes = 1'000'000;
  (void)write_corpus(options, directory / "corpus");
  rusage before{}, after{};
  getrusage(RUSAGE_SELF, &before);
  options.bytes = 40'000'000;
  (void)write_corpus(options, directory / "corpus");
  getrusage(RUSAGE_SELF, &after);
  EXPECT_LT(after.ru_maxrss - before.ru_maxrss, 12'000) << "KiB";
}

TEST(Tales, BadOptionsAreNamed) {
  const TemporaryDirectory directory;
  const auto error_with = [&](auto&& change) {
    Options options = small_options();
    change(options);
    return error_of([&] { (void)write_corpus(options, directory / "corpus"); });
  };
  EXPECT_EQ(error_with([](Options& o) { o.bytes = 0; }), "[tales] bytes: expected at least 10000, found 0");
  EXPECT_EQ(error_with([](Options& o) { o.valid_bytes = 5; }),
            "[tales] valid_bytes: expected 0 or at least 10000, found 5");
  EXPECT_EQ(error_with([](Options& o) { o.fact_share = -0.5; }),
            "[tales] fact_share: expected a number of at least 0, found -0.5");
  EXPECT_EQ(error_with([](Options& o) { o.story_share = NAN; }),
            "[tales] story_share: expected a number of at least 0, found nan");
  EXPECT_EQ(error_with([](Options& o) {
              o.story_share = o.question_share = o.arithmetic_share = o.instruction_share = o.fact_share = 0;
            }),
            "[tales] shares: expected at least one above 0, found none");
  EXPECT_FALSE(std::filesystem::exists(directory / "corpus"));
  const std::string kind = error_of([] { (void)question({}, Split::train, 0, "wher"); });
  EXPECT_TRUE(kind.starts_with("[tales] question kind 'wher': expected one of what, who,")) << kind;
  EXPECT_TRUE(kind.ends_with("did you mean 'where'?")) << kind;
  EXPECT_TRUE(error_of([] {
                (void)instruction({}, Split::train, 0, "sing");
              }).starts_with("[tales] instruction kind 'sing'"));

  write_file(directory / "file", "x");
  EXPECT_TRUE(error_of([&] {
                (void)write_corpus(small_options(), directory / "file/corpus");
              }).starts_with(directory / "file/corpus" + ": cannot create directory: "));
}

TEST(Tales, AnInterruptedRunLeavesTheOldFiles) {
  const TemporaryDirectory directory;
  write_file(directory / "train.txt", "old");
  catch_interrupts();
  const std::string error = error_of([&] {
    (void)write_corpus(small_options(), directory.path(), [](uint64_t done, uint64_t) {
      if (done > 100'000 && !interrupted()) std::raise(SIGTERM);
    });
  });
  clear_interrupt();
  EXPECT_EQ(error, "[tales] interrupted; nothing was written to " + directory.path());
  const auto files = files_of(directory.path());
  EXPECT_EQ(files.size(), 1u);
  EXPECT_EQ(files.at("train.txt"), "old");
}

}  // namespace
}  // namespace qkv::tales
